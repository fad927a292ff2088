import { spawn, spawnSync } from 'node:child_process';
import { generateKeyPairSync } from 'node:crypto';
import { once } from 'node:events';
import { mkdirSync, writeFileSync } from 'node:fs';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { join } from 'node:path';
import { createInterface } from 'node:readline';

import forge from 'node-forge';

import { SystemClock, type Clock } from '../../common/runtime/clock.ts';
import { silentLog } from '../../common/runtime/log.ts';
import { SystemRandom } from '../../common/runtime/random.ts';
import {
  ChannelServer,
  type ChannelServerOptions,
} from '../../guest-agent/channel/channel-server.ts';
import {
  GuestChannelClient,
  type GuestChannelClientOptions,
} from '../../host-collector/guests/guest-channel-client.ts';
import type { GuestListener } from '../../host-collector/guests/guest-listener.ts';
import { NotifiedArrival, type RowArrival } from '../../host-collector/guests/row-arrival.ts';
import type { MemoryRowStore } from './memory-row-store.ts';

export const everyTable = [{ area: 'unencrypted', tables: '**' }] as const;

/** A channel server over `store`, on the real clock unless the guest has one of its own. */
export async function startGuest(
  store: MemoryRowStore,
  options: Partial<ChannelServerOptions> & { readonly address: string },
  { clock = new SystemClock(), bootId = 'boot-1' }: { clock?: Clock; bootId?: string } = {},
): Promise<ChannelServer> {
  const bootClock = { bootId, bootTimeUs: () => Math.round(clock.monotonicMs() * 1_000) };
  const server = new ChannelServer(
    { clock, bootClock, log: silentLog, store },
    { agentInstance: 'agent-1', watermarkIntervalMs: 20, ...options },
  );
  await server.start();
  return server;
}

export async function startHost(
  listener: GuestListener,
  options: Partial<GuestChannelClientOptions> & { readonly address: string },
  arrival: RowArrival = new NotifiedArrival(),
): Promise<GuestChannelClient> {
  const client = new GuestChannelClient(
    { clock: new SystemClock(), log: silentLog, random: new SystemRandom(), arrival, listener },
    { hostInstance: 'host-1', registrations: everyTable, ...options },
  );
  await client.start();
  return client;
}

/** How a proxied connection is treated; bytes are counted in each direction. */
export interface Treatment {
  readonly cutAfterUpBytes?: number;
  readonly cutAfterDownBytes?: number;
  /** Passed on one byte at a time. */
  readonly dribbles?: boolean;
  /** Sent to the guest before anything of the host's. */
  readonly garbage?: Uint8Array;
  /** Nothing is passed on. */
  readonly isBlackHole?: boolean;
}

/** A unix socket in front of a guest's, which treats its connections badly, each as `treat` says. */
export class FaultyProxy {
  connectionCount = 0;
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();

  constructor(targetPath: string, treat: (connectionIndex: number) => Treatment) {
    this.#server = createServer((host) => {
      const treatment = treat(this.connectionCount);
      this.connectionCount += 1;
      const guest = connect(targetPath);
      for (const socket of [host, guest]) {
        this.#sockets.add(socket);
        socket.on('error', () => {});
        socket.on('close', () => {
          this.#sockets.delete(socket);
          host.destroy();
          guest.destroy();
        });
      }
      if (treatment.garbage !== undefined) guest.write(treatment.garbage);
      pass(host, guest, treatment, treatment.cutAfterUpBytes ?? Infinity);
      pass(guest, host, treatment, treatment.cutAfterDownBytes ?? Infinity);
    });
  }

  async listen(path: string): Promise<void> {
    this.#server.listen(path);
    await once(this.#server, 'listening');
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    this.#server.close();
    await once(this.#server, 'close');
  }
}

function pass(from: Socket, to: Socket, treatment: Treatment, cutAfterBytes: number): void {
  let passedBytes = 0;
  from.on('data', (chunk: Buffer) => {
    if (treatment.isBlackHole === true) return;
    const passed = chunk.subarray(0, Math.max(0, cutAfterBytes - passedBytes));
    passedBytes += passed.length;
    const pieceBytes = treatment.dribbles === true ? 1 : Math.max(1, passed.length);
    for (let at = 0; at < passed.length; at += pieceBytes) {
      to.write(passed.subarray(at, at + pieceBytes));
    }
    if (passedBytes < cutAfterBytes) return;
    to.end(() => {
      from.destroy();
    });
  });
}

/** Writes ca.pem, cert.pem and key.pem for localhost into a new `directory`, signed by `authority`. */
export function writeCertificates(directory: string, authority: CertificateAuthority): void {
  const keys = newKeys();
  const certificate = authority.sign('localhost', keys.publicKey, [
    { name: 'basicConstraints', cA: false },
    {
      name: 'subjectAltName',
      altNames: [
        { type: 2, value: 'localhost' },
        { type: 7, ip: '127.0.0.1' },
      ],
    },
  ]);
  mkdirSync(directory);
  writeFileSync(join(directory, 'ca.pem'), authority.pem);
  writeFileSync(join(directory, 'cert.pem'), certificate);
  writeFileSync(join(directory, 'key.pem'), forge.pki.privateKeyToPem(keys.privateKey));
}

/** A certificate authority of a test's own. */
export class CertificateAuthority {
  readonly pem: string;
  readonly #keys = newKeys();
  readonly #name: string;

  constructor(name: string) {
    this.#name = name;
    this.pem = this.sign(name, this.#keys.publicKey, [{ name: 'basicConstraints', cA: true }]);
  }

  sign(subject: string, publicKey: forge.pki.rsa.PublicKey, extensions: object[]): string {
    const certificate = forge.pki.createCertificate();
    certificate.publicKey = publicKey;
    certificate.serialNumber = `01${forge.util.bytesToHex(forge.random.getBytesSync(8))}`;
    certificate.validity.notBefore = new Date(Date.now() - 3_600_000);
    certificate.validity.notAfter = new Date(Date.now() + 3_600_000);
    certificate.setSubject([{ name: 'commonName', value: subject }]);
    certificate.setIssuer([{ name: 'commonName', value: this.#name }]);
    certificate.setExtensions(extensions);
    certificate.sign(this.#keys.privateKey, forge.md.sha256.create());
    return forge.pki.certificateToPem(certificate);
  }
}

function newKeys(): { publicKey: forge.pki.rsa.PublicKey; privateKey: forge.pki.rsa.PrivateKey } {
  const { privateKey: pem } = generateKeyPairSync('rsa', {
    modulusLength: 2_048,
    privateKeyEncoding: { type: 'pkcs1', format: 'pem' },
    publicKeyEncoding: { type: 'pkcs1', format: 'pem' },
  });
  const privateKey = forge.pki.privateKeyFromPem(pem);
  return { privateKey, publicKey: forge.pki.setRsaPublicKey(privateKey.n, privateKey.e) };
}

/** Relays between a pty and a unix socket that takes one connection at a time, as QEMU's chardev does for its port. */
const ptyRelay = `
import os, pty, select, socket, sys, tty
master, slave = pty.openpty()
tty.setraw(slave)
server = socket.socket(socket.AF_UNIX)
server.bind(sys.argv[1])
server.listen(4)
print(os.ttyname(slave), flush=True)
while True:
    host, _ = server.accept()
    while True:
        ready, _, _ = select.select([host, master, sys.stdin], [], [])
        if sys.stdin in ready: sys.exit()
        try:
            if master in ready: host.sendall(os.read(master, 65536))
            if host in ready:
                data = host.recv(65536)
                if not data: break
                while data: data = data[os.write(master, data):]
        except ConnectionError: break
    host.close()
`;

/** Whether {@link startPtyPair} can run here. */
export const hasPython: boolean = spawnSync('python3', ['--version']).status === 0;

/** A character device that stands for a virtio-serial port, and the unix socket of its other end. */
export async function startPtyPair(
  socketPath: string,
): Promise<AsyncDisposable & { readonly devicePath: string }> {
  const relay = spawn('python3', ['-c', ptyRelay, socketPath], {
    stdio: ['pipe', 'pipe', 'ignore'],
  });
  const [line] = (await once(createInterface(relay.stdout), 'line')) as [string];
  return {
    devicePath: line,
    [Symbol.asyncDispose]: async () => {
      if (relay.exitCode !== null) return;
      const exited = once(relay, 'exit');
      relay.kill('SIGKILL');
      await exited;
    },
  };
}
