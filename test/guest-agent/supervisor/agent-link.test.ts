import { EventEmitter } from 'node:events';

import { describe, expect, test } from 'vitest';

import { silentLog } from '../../../common/runtime/log.ts';
import { AgentLink } from '../../../guest-agent/supervisor/agent-link.ts';
import { onStopSignals } from '../../../guest-agent/supervisor/stop-signals.ts';

/** A child process's end of the channel. */
class FakeProcess extends EventEmitter {
  connected = true;
  readonly sent: unknown[] = [];

  send(message: unknown): boolean {
    this.sent.push(message);
    return true;
  }

  disconnect(): void {
    this.connected = false;
    this.emit('disconnect');
  }
}

function linked(): { child: FakeProcess; link: AgentLink; heard: string[] } {
  const child = new FakeProcess();
  const link = new AgentLink(child, { log: silentLog });
  const heard: string[] = [];
  link.listen({
    serve: (message) => {
      heard.push(`serve ${message.descriptor}`);
    },
    stop: (reason) => {
      heard.push(`stop ${reason}`);
    },
  });
  return { child, link, heard };
}

describe('AgentLink', () => {
  test('serves and stops as its supervisor says; leaves messages of another form', () => {
    const { child, heard } = linked();
    child.emit('message', { type: 'serve', descriptor: 4, mountPath: '/m', takeover: null });
    child.emit('message', { type: 'serve', descriptor: -1, mountPath: '/m', takeover: null });
    child.emit('message', 'nonsense');
    child.emit('message', { type: 'stop' });
    expect(heard).toEqual(['serve 4', 'stop asked']);
  });

  test('reports negotiation, readiness and end while there is a channel', () => {
    const { child, link } = linked();
    const negotiation = { kernelMinor: 45, flags: 1, flags2: 2 };
    link.negotiated(negotiation);
    link.ready();
    link.ended('unmounted');
    child.connected = false;
    link.ready();
    expect(child.sent).toEqual([
      { type: 'negotiated', negotiation },
      { type: 'ready' },
      { type: 'ended', end: 'unmounted' },
    ]);
  });

  test('closing in answer to a message leaves the channel until that message is handed over', async () => {
    const child = new FakeProcess();
    const link = new AgentLink(child, { log: silentLog });
    link.listen({
      serve: () => {},
      stop: () => {
        link.close();
      },
    });
    child.emit('message', { type: 'stop' });
    expect(child.connected).toBe(true);
    await new Promise((resolve) => {
      setImmediate(resolve);
    });
    expect(child.connected).toBe(false);
  });

  test('closing the channel itself is no death of the supervisor', async () => {
    const { link, heard, child } = linked();
    link.close();
    await new Promise((resolve) => {
      setImmediate(resolve);
    });
    expect(child.connected).toBe(false);
    expect(heard).toEqual([]);
  });
});

describe('onStopSignals', () => {
  test('the first signal stops in order, the second now, further ones are ignored', () => {
    const source = new EventEmitter();
    const done: string[] = [];
    const remove = onStopSignals(source, {
      stop: () => {
        done.push('stop');
      },
      stopNow: () => {
        done.push('stop now');
      },
    });
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGINT']) source.emit(signal);
    expect(done).toEqual(['stop', 'stop now']);
    remove();
    expect(source.listenerCount('SIGINT') + source.listenerCount('SIGTERM')).toBe(0);
  });
});
