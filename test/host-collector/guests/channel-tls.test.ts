import { once } from 'node:events';
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { connect, createServer, type Socket } from 'node:net';
import { join } from 'node:path';

import { describe, expect, test } from 'vitest';

import {
  CertificateAuthority,
  startGuest,
  startHost,
  writeCertificates,
} from '../../support/channel-fixture.ts';
import { eventually } from '../../support/eventually.ts';
import { MemoryRowStore } from '../../support/memory-row-store.ts';
import { RecordingGuestListener } from '../../support/recording-guest-listener.ts';
import { temporaryDirectory } from '../../support/temporary-directory.ts';

const timeout = { timeoutMs: 10_000 };

describe('guest channel over TCP with mutual TLS', () => {
  test('TCP refuses an end whose certificate another authority signed', async () => {
    using directory = temporaryDirectory();
    writeCertificates(join(directory.path, 'guest'), new CertificateAuthority('ours'));
    writeCertificates(join(directory.path, 'host'), new CertificateAuthority('theirs'));
    const tlsDirectory = (end: string) => ({ tlsDirectory: join(directory.path, end) });
    const server = await startGuest(new MemoryRowStore(), {
      address: 'tcp:127.0.0.1:0',
      ...tlsDirectory('guest'),
    });
    const listener = new RecordingGuestListener();
    const client = await startHost(listener, { address: server.address!, ...tlsDirectory('host') });
    const trusting = await startHost(listener, {
      address: server.address!,
      ...tlsDirectory('guest'),
    });
    await eventually(() => listener.connections.length > 0, timeout);
    expect(listener.connections).toHaveLength(1);
    await trusting.stop();
    await client.stop();
    await server.stop();
  });

  test('renewed certificates, of another authority too, are taken by both ends without a restart, at the next connection', async () => {
    using directory = temporaryDirectory();
    const ends = ['guest', 'host'].map((end) => join(directory.path, end));
    const [guestFiles = '', hostFiles = ''] = ends;
    const before = new CertificateAuthority('before');
    for (const end of ends) writeCertificates(end, before);
    const server = await startGuest(new MemoryRowStore(), {
      address: 'tcp:127.0.0.1:0',
      tlsDirectory: guestFiles,
    });
    const port = Number(server.address?.split(':').at(-1));
    const sockets: Socket[] = [];
    const proxy = createServer((socket) => {
      const onward = connect(port, '127.0.0.1');
      for (const each of [socket, onward]) {
        each.on('error', () => {});
        sockets.push(each);
      }
      socket.pipe(onward).pipe(socket);
    });
    proxy.listen(0, '127.0.0.1');
    await once(proxy, 'listening');
    const address = proxy.address();
    if (address === null || typeof address === 'string') throw new Error('it listens on a port');
    const listener = new RecordingGuestListener();
    const client = await startHost(listener, {
      address: `tcp:127.0.0.1:${address.port}`,
      tlsDirectory: hostFiles,
    });
    await eventually(() => listener.connections.length === 1, timeout);

    const after = new CertificateAuthority('after');
    rmSync(guestFiles, { recursive: true });
    writeCertificates(guestFiles, after);
    // A key that is not the certificate's: as between the writing of two files.
    writeFileSync(join(hostFiles, 'key.pem'), readFileSync(join(guestFiles, 'key.pem')));
    const cut = (): void => {
      for (const socket of sockets.splice(0)) socket.destroy();
    };
    cut();
    await eventually(() => !server.hasHost, timeout);
    rmSync(hostFiles, { recursive: true });
    writeCertificates(hostFiles, after);
    await eventually(() => listener.connections.length === 2, timeout);

    // Files of the guest that can't be used leave it with those that it had.
    rmSync(join(guestFiles, 'key.pem'));
    cut();
    await eventually(() => listener.connections.length > 2, timeout);
    expect(listener.connections).toHaveLength(3);
    await client.stop();
    await server.stop();
    cut();
    proxy.close();
    await once(proxy, 'close');
  });
});
