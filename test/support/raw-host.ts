import { once } from 'node:events';
import { connect } from 'node:net';

import { MessageConnection } from '../../common/channel/message-connection.ts';
import type { ChannelMessage } from '../../common/channel/message.ts';
import { SystemClock } from '../../common/runtime/clock.ts';

/** A host of the test's own, which says what it is told to. */
export interface RawHost {
  readonly connection: MessageConnection;
  readonly received: readonly ChannelMessage[];
  kinds(): readonly string[];
  /** Why the connection is over; undefined while it is not. */
  closeReason(): string | undefined;
  /** Begins the session of that number. */
  hello(session: number): void;
}

/** Connects to the guest's socket at `path`. */
export async function rawHost(path: string): Promise<RawHost> {
  const socket = connect(path);
  await once(socket, 'connect');
  const received: ChannelMessage[] = [];
  let closeReason: string | undefined;
  const connection = new MessageConnection({ clock: new SystemClock() }, socket, {
    message: (message) => {
      received.push(message);
    },
    damage: () => {},
    closed: (reason) => {
      closeReason = reason;
    },
  });
  return {
    connection,
    received,
    kinds: () => received.map(({ kind }) => kind),
    closeReason: () => closeReason,
    hello: (session: number) => {
      const versions = { oldest: 1, newest: 1 };
      connection.send({ kind: 'hello', versions, hostInstance: 'raw' }, session);
      connection.session = session;
    },
  };
}
