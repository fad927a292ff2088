import { join } from 'node:path';
import { connect, type TLSSocket } from 'node:tls';

import type { AuditEntry, AuditEvent, AuditTrail } from '../../common/audit/audit-entry.ts';
import { SystemClock, type Clock } from '../../common/runtime/clock.ts';
import { silentLog, type Log, type LogFields } from '../../common/runtime/log.ts';
import { SystemRandom } from '../../common/runtime/random.ts';
import type { BoundEndpoint } from '../../common/site-control/endpoint.ts';
import { contentDigestOf, signRequest } from '../../common/site-control/message-signature.ts';
import { ReplayStore } from '../../common/site-control/replay-store.ts';
import { signatureTimesDefault } from '../../common/site-control/request-gate.ts';
import {
  SiteControlClient,
  siteControlClientDefault,
  type SiteControlClientOptions,
} from '../../common/site-control/site-control-client.ts';
import {
  SiteControlServer,
  siteControlServerDefault,
  type SiteControlServerOptions,
} from '../../common/site-control/site-control-server.ts';
import { TestIdentity, type TestSite } from './control-site.ts';

/** Collects what is recorded; `fails` as a full disk does. */
export class MemoryAudit implements AuditTrail {
  readonly events: AuditEvent[] = [];
  fails = false;

  append(event: AuditEvent): AuditEntry {
    if (this.fails) throw new Error('disk full');
    this.events.push(event);
    return { ...event, seq: this.events.length, atUs: 0, previous: '', hash: '' };
  }

  outcomes(): string[] {
    return this.events.map(({ outcome }) => outcome);
  }
}

/** Collects what is logged. */
export class MemoryLog implements Log {
  readonly events: { readonly event: string; readonly fields: LogFields }[] = [];

  error(event: string, fields: LogFields = {}): void {
    this.events.push({ event, fields });
  }
  warn(event: string, fields: LogFields = {}): void {
    this.events.push({ event, fields });
  }
  info(): void {}
  debug(): void {}
  child(): Log {
    return this;
  }
}

/** A clock whose wall time can be put apart from the machine's. */
export class SkewedClock extends SystemClock {
  skewS = 0;

  override wallUs(): number {
    return super.wallUs() + this.skewS * 1_000_000;
  }
}

/** A running site with its neighbours, and clients of them. */
export class ControlSite implements AsyncDisposable {
  readonly identity: TestIdentity;
  readonly audit = new MemoryAudit();
  readonly log = new MemoryLog();
  readonly clock: Clock;
  readonly server: SiteControlServer;
  readonly #replays: ReplayStore;

  private constructor(
    endpoints: readonly BoundEndpoint[],
    site: TestSite,
    neighbours: Readonly<Record<string, TestSite>>,
    parts: { readonly directory: string; readonly clock: Clock; readonly port: number },
    options: Partial<SiteControlServerOptions>,
  ) {
    const { directory, clock, port } = parts;
    this.clock = clock;
    this.identity = new TestIdentity(site, neighbours);
    const times = options.times ?? signatureTimesDefault;
    this.#replays = new ReplayStore(
      { clock, log: silentLog },
      {
        path: join(directory, 'replays.db'),
        skewMaxS: times.skewMaxS,
        noncesPerRelationMax: 10_000,
        bootId: 'boot',
      },
    );
    this.server = new SiteControlServer(
      endpoints,
      {
        clock,
        log: this.log,
        random: new SystemRandom(),
        identity: this.identity,
        keys: this.identity,
        replays: this.#replays,
        audit: this.audit,
      },
      { ...siteControlServerDefault, times, host: '127.0.0.1', port, ...options },
    );
  }

  static async start(
    endpoints: readonly BoundEndpoint[],
    site: TestSite,
    neighbours: Readonly<Record<string, TestSite>>,
    parts: { readonly directory: string; readonly clock?: Clock; readonly port?: number },
    options: Partial<SiteControlServerOptions> = {},
  ): Promise<ControlSite> {
    const { directory, clock = new SystemClock(), port = 0 } = parts;
    const running = new ControlSite(
      endpoints,
      site,
      neighbours,
      { directory, clock, port },
      options,
    );
    running.#replays.open();
    await running.server.start();
    return running;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.server.stop();
    this.#replays.close();
  }
}

/** A started client of `port`, as the site of `identity`. */
export class ControlNeighbour implements AsyncDisposable {
  readonly audit = new MemoryAudit();
  readonly client: SiteControlClient;

  constructor(
    identity: TestIdentity,
    relation: string,
    port: number,
    options: Partial<SiteControlClientOptions> & { readonly clock?: Clock } = {},
  ) {
    const { clock = new SystemClock(), ...rest } = options;
    this.client = new SiteControlClient(
      {
        clock,
        log: silentLog,
        random: new SystemRandom(),
        identity,
        keys: identity,
        audit: this.audit,
      },
      {
        ...siteControlClientDefault,
        retries: { initialMs: 1, maxMs: 2, attemptsMax: 3 },
        times: signatureTimesDefault,
        relation,
        host: '127.0.0.1',
        port,
        ...rest,
      },
    );
    void this.client.start();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.client.stop();
  }
}

/** One request as bytes, signed by `site`, with whatever a test changes after or before signing. */
export function rawRequest(
  site: TestSite,
  relation: string,
  port: number,
  change: {
    readonly method?: string;
    readonly path?: string;
    readonly body?: string;
    readonly createdS?: number;
    readonly lifetimeS?: number;
    readonly nonce?: string;
    readonly signedRelation?: string;
    /** After signing. */
    readonly sentBody?: string;
    readonly sentPath?: string;
    readonly sentMethod?: string;
    readonly headers?: Readonly<Record<string, string | undefined>>;
  } = {},
): string {
  const { method = 'GET', path = '/v1/site', body = '' } = change;
  const createdS = change.createdS ?? Math.floor(Date.now() / 1_000);
  const contentDigest = contentDigestOf(Buffer.from(body));
  const signedRelation = change.signedRelation ?? relation;
  const fields = signRequest(
    {
      method,
      targetUri: `https://127.0.0.1:${port}${path}`,
      contentDigest,
      idempotencyKey: 'key-1',
      relation: signedRelation,
    },
    {
      createdS,
      expiresS: createdS + (change.lifetimeS ?? 60),
      nonce: change.nonce ?? Buffer.from(new SystemRandom().bytes(16)).toString('base64url'),
    },
    site.signing.privateKey,
  );
  const sentBody = change.sentBody ?? body;
  const headers: Record<string, string | undefined> = {
    host: `127.0.0.1:${port}`,
    'content-length': String(Buffer.byteLength(sentBody)),
    'content-digest': contentDigest,
    'idempotency-key': 'key-1',
    'isobar-relation': signedRelation,
    'signature-input': fields.signatureInput,
    signature: fields.signature,
    ...change.headers,
  };
  const lines = Object.entries(headers).flatMap(([name, value]) =>
    value === undefined ? [] : [`${name}: ${value}`],
  );
  const target = `${change.sentMethod ?? method} ${change.sentPath ?? path} HTTP/1.1`;
  return `${[target, ...lines].join('\r\n')}\r\n\r\n${sentBody}`;
}

/** A TLS connection as `site`, on which a test writes what it likes. */
export class RawConnection implements Disposable {
  readonly socket: TLSSocket;
  #received = '';
  #isClosed = false;

  private constructor(socket: TLSSocket) {
    this.socket = socket;
    socket.on('data', (chunk: Buffer) => {
      this.#received += chunk.toString('latin1');
    });
    socket.on('error', () => {});
    socket.on('close', () => {
      this.#isClosed = true;
    });
  }

  /** Resolves when the handshake is over at this end: with TLS 1.3 a server may still refuse. */
  static async open(site: TestSite, trusted: TestSite, port: number): Promise<RawConnection> {
    const socket = connect({
      host: '127.0.0.1',
      port,
      cert: site.cert,
      key: site.key,
      ca: [trusted.authority.toString('pem')],
      checkServerIdentity: () => undefined,
    });
    const connection = new RawConnection(socket);
    await new Promise((resolve) => {
      socket.once('secureConnect', resolve);
      socket.once('close', resolve);
    });
    return connection;
  }

  get received(): string {
    return this.#received;
  }

  get isClosed(): boolean {
    return this.#isClosed;
  }

  /** Status and body of the newest answer, once it is whole. */
  get answer(): { readonly status: number; readonly body: string } | undefined {
    const last = this.#received.slice(this.#received.lastIndexOf('HTTP/1.1 '));
    const [, status] = /^HTTP\/1\.1 (\d{3})/.exec(last) ?? [];
    const end = last.indexOf('\r\n\r\n');
    const [, length = '0'] = /content-length: (\d+)/i.exec(last) ?? [];
    const body = last.slice(end + 4);
    const isWhole = status !== undefined && end >= 0 && body.length >= Number(length);
    return isWhole ? { status: Number(status), body } : undefined;
  }

  write(text: string): void {
    this.socket.write(text);
  }

  [Symbol.dispose](): void {
    this.socket.destroy();
  }
}
