import type { Duplex } from 'node:stream';

import { MessageConnection, type CloseReason } from '../../common/channel/message-connection.ts';
import type { ChannelMessage, ClockStep, MessageOf } from '../../common/channel/message.ts';
import {
  channelTimings,
  protocolVersion,
  protocolVersionOldest,
  type ChannelTimings,
} from '../../common/channel/protocol.ts';
import type { Cancel, Clock } from '../../common/runtime/clock.ts';
import type { Log } from '../../common/runtime/log.ts';
import type { Service } from '../../common/runtime/service.ts';
import { StageCounters, type StageCounts } from '../../common/runtime/stage-counters.ts';
import type { BootClock } from './boot-clock.ts';
import { ClockWatcher } from './clock-watcher.ts';
import { GuestEndpoint, type GuestEndpointOptions } from './guest-endpoint.ts';
import { GuestSession } from './guest-session.ts';
import type { RowStore } from './row-store.ts';

export interface ChannelServerOptions extends GuestEndpointOptions {
  /** Differs at each start of the agent; at most 256 characters. */
  readonly agentInstance: string;
  /**
   * How often the host is told the watermark; what a window waits for beyond its end. While nothing is published four
   * times as rarely.
   */
  readonly watermarkIntervalMs?: number;
  readonly timings?: ChannelTimings;
}

export interface ChannelServerDeps {
  readonly clock: Clock;
  readonly bootClock: BootClock;
  readonly log: Log;
  readonly store: RowStore;
}

const watermarkIntervalMsDefault = 250;
const restingIntervalRatio = 4;

/** A stream that came, and its session once a hello was heard. */
interface Peer {
  readonly connection: MessageConnection;
  session: GuestSession | undefined;
}

/**
 * The guest's end of the channel. One host at a time: a hello on a newer connection ends the older one. Without a
 * host nothing is kept, nothing waits and no timer runs; a slow host is told less often, never later what it asks for.
 */
export class ChannelServer implements Service {
  readonly name = 'guest-channel-server';
  readonly #deps: ChannelServerDeps;
  readonly #options: ChannelServerOptions;
  readonly #endpoint: GuestEndpoint;
  readonly #watcher: ClockWatcher;
  readonly #counters = new StageCounters();
  readonly #peers = new Set<Peer>();
  readonly #cancels: Cancel[] = [];
  #cancelTick: Cancel = () => {};
  /** True while a watermark is due within the short interval. */
  #isTickSoon = false;

  constructor(deps: ChannelServerDeps, options: ChannelServerOptions) {
    this.#deps = deps;
    this.#options = options;
    this.#endpoint = new GuestEndpoint(deps, options, (stream) => {
      this.#accept(stream);
    });
    this.#watcher = new ClockWatcher(deps, (step) => {
      this.#reportClockStep(step);
    });
  }

  /** Where a host can dial, with the port that the system chose; undefined before the start. */
  get address(): string | undefined {
    return this.#endpoint.address;
  }

  /** True while a host has said a valid hello and is there. */
  get hasHost(): boolean {
    return this.#activeSession() !== undefined;
  }

  /** Rows read for hosts (accepted), rows sent (forwarded); failed: fetches, and what is no message. */
  get counts(): StageCounts {
    return this.#counters.snapshot();
  }

  /** @throws ChannelError `address-invalid`, `tls-files-unreadable`, `listen-failed` */
  async start(): Promise<void> {
    const { store } = this.#deps;
    this.#cancels.push(
      store.onPublished((publication) => {
        const session = this.#activeSession();
        if (session === undefined) return;
        session.published(publication);
        if (!this.#isTickSoon) this.#scheduleTick(true);
      }),
      store.onLost((area, range) => this.#activeSession()?.lost(area, range.throughRowId)),
    );
    await this.#endpoint.start();
  }

  async stop(): Promise<void> {
    for (const cancel of this.#cancels.splice(0)) cancel();
    this.#rest();
    const isStopped = this.#endpoint.stop();
    for (const { connection } of this.#peers) connection.close();
    await isStopped;
  }

  #accept(stream: Duplex): void {
    const connection: MessageConnection = new MessageConnection(
      this.#deps,
      stream,
      {
        message: (message, session) => {
          try {
            this.#receive(peer, message, session);
          } catch (error) {
            this.#giveUp(peer, error);
          }
        },
        damage: ({ cause, byteCount }) => {
          this.#counters.failAtOnce();
          this.#deps.log.warn('guest-channel-bytes-skipped', { cause, byteCount });
          // Something that the host sent may be gone with it: it has to begin anew.
          if (peer.session !== undefined) this.#endSession(peer);
        },
        closed: (reason, error) => {
          this.#forget(peer, reason, error);
        },
      },
      this.#options.timings ?? channelTimings,
    );
    const peer: Peer = { connection, session: undefined };
    this.#peers.add(peer);
    this.#invite(peer, null);
  }

  #receive(peer: Peer, message: ChannelMessage, sessionId: number): void {
    if (message.kind === 'hello') {
      this.#hello(peer, message, sessionId);
      return;
    }
    const { session } = peer;
    if (session?.id !== sessionId) {
      this.#invite(peer, sessionId);
      return;
    }
    switch (message.kind) {
      case 'register':
        session.register(message).catch((error: unknown) => {
          this.#giveUp(peer, error);
        });
        break;
      case 'fetch':
        session.fetch(message);
        break;
      case 'acknowledge':
        session.acknowledge(message);
        break;
      case 'clock-request':
        this.#answerClock(peer, message);
        break;
      case 'ping':
        break;
      // What only a guest says.
      case 'invite':
      case 'welcome':
      case 'published':
      case 'rows':
      case 'watermark':
      case 'clock-response':
      case 'clock-step':
      case 'error':
        break;
    }
  }

  /** A repeated hello of the session gets its welcome again and changes nothing else. */
  #hello(peer: Peer, { versions, hostInstance }: MessageOf<'hello'>, sessionId: number): void {
    const version = Math.min(versions.newest, protocolVersion);
    if (version < Math.max(versions.oldest, protocolVersionOldest)) {
      const message = `this agent speaks versions ${protocolVersionOldest} to ${protocolVersion} of the guest channel; update the older side`;
      const code = 'version-unsupported';
      peer.connection.send({ kind: 'error', code, message, requestId: null }, sessionId);
      return;
    }
    for (const other of this.#peers) {
      if (other === peer || other.session === undefined) continue;
      this.#deps.log.info('guest-channel-host-replaced', { hostInstance });
      other.connection.close();
    }
    const { store, bootClock, log } = this.#deps;
    if (peer.session?.id !== sessionId) {
      const checkClock = (): void => {
        this.#watcher.check();
      };
      const deps = { store, log, counters: this.#counters, checkClock };
      peer.session = new GuestSession(deps, peer.connection, sessionId);
      this.#watcher.start();
      this.#scheduleTick(true);
      peer.connection.session = sessionId;
      log.info('guest-channel-host-connected', { hostInstance, version });
    }
    peer.connection.send({
      kind: 'welcome',
      version,
      agentInstance: this.#options.agentInstance,
      bootId: bootClock.bootId,
      generations: store.generations(),
      heads: { encrypted: store.head('encrypted'), unencrypted: store.head('unencrypted') },
    });
  }

  #answerClock(peer: Peer, request: MessageOf<'clock-request'>): void {
    // A step must be known to the host before it gets times that were read after it.
    this.#watcher.check();
    const guestReceivedUs = this.#deps.clock.wallUs();
    const { requestId, hostSentUs } = request;
    const guestSentUs = this.#deps.clock.wallUs();
    peer.connection.send({
      kind: 'clock-response',
      requestId,
      hostSentUs,
      guestReceivedUs,
      guestSentUs,
    });
  }

  #reportClockStep(step: ClockStep): void {
    this.#deps.log.warn('clock-stepped', {
      cause: step.cause,
      stepUs: step.wallAfterUs - step.wallBeforeUs,
    });
    for (const { connection, session } of this.#peers) {
      if (session !== undefined) connection.send(step);
    }
  }

  /** The store failed at something that is no fetch: the host comes back and begins anew. */
  #giveUp(peer: Peer, error: unknown): void {
    const reason = error instanceof Error ? error.message : String(error);
    this.#deps.log.warn('guest-channel-store-failed', { reason });
    peer.connection.close();
  }

  #scheduleTick(isSoon: boolean): void {
    const intervalMs = this.#options.watermarkIntervalMs ?? watermarkIntervalMsDefault;
    this.#cancelTick();
    this.#isTickSoon = isSoon;
    this.#cancelTick = this.#deps.clock.after(
      isSoon ? intervalMs : intervalMs * restingIntervalRatio,
      () => {
        this.#tick();
      },
    );
  }

  /** Without a host there is nobody to tell anything. */
  #rest(): void {
    this.#cancelTick();
    this.#isTickSoon = false;
    this.#watcher.stop();
  }

  #tick(): void {
    this.#scheduleTick(false);
    try {
      this.#activeSession()?.tick();
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      this.#deps.log.warn('guest-channel-watermark-failed', { reason });
    }
  }

  #endSession(peer: Peer): void {
    const endedSession = peer.session?.id ?? null;
    peer.session = undefined;
    if (!this.hasHost) this.#rest();
    peer.connection.session = 0;
    this.#invite(peer, endedSession);
  }

  /** Not while bytes wait: the host has to read anyway before it can do something. */
  #invite(peer: Peer, endedSession: number | null): void {
    if (peer.connection.isCongested) return;
    const { agentInstance } = this.#options;
    peer.connection.send({ kind: 'invite', agentInstance, endedSession }, 0);
  }

  #forget(peer: Peer, reason: CloseReason, error: Error | null): void {
    this.#peers.delete(peer);
    if (reason === 'malformed') this.#counters.failAtOnce();
    if (peer.session === undefined) return;
    peer.session = undefined;
    if (!this.hasHost) this.#rest();
    void this.#deps.store.registerTables([]);
    this.#deps.log.info('guest-channel-host-gone', { reason, error: error?.message ?? null });
  }

  #activeSession(): GuestSession | undefined {
    for (const { session } of this.#peers) {
      if (session !== undefined) return session;
    }
    return undefined;
  }
}
