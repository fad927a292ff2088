import { once } from 'node:events';
import { connect } from 'node:net';

import { MessageConnection } from '../../common/channel/message-connection.ts';
import type { ChannelMessage } from '../../common/channel/message.ts';
import { SystemClock } from '../../common/runtime/clock.ts';

/** A host of the test's own, which says what it is told to. */
export async function rawHost(path: string) {
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
    socket,
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
