import type { Clock } from '../../common/runtime/clock.ts';
import type { Log } from '../../common/runtime/log.ts';
import type { Random } from '../../common/runtime/random.ts';
import { GuestChannelClient } from '../guests/guest-channel-client.ts';
import type { GuestListener as ChannelListener } from '../guests/guest-listener.ts';
import { NotifiedArrival, PolledArrival } from '../guests/row-arrival.ts';
import type { GuestListener } from './guest-listener.ts';
import type { GuestClient, GuestClientFactory } from './vm-supervisor.ts';

const instanceBytes = 8;

/** Clients of real guest channels: what they bring goes to the origin, and what is durable there is acknowledged. */
export function guestChannelClients(deps: {
  readonly clock: Clock;
  readonly log: Log;
  readonly random: Random;
}): GuestClientFactory {
  const hostInstance = Buffer.from(deps.random.bytes(instanceBytes)).toString('hex');
  return (guest, origin, vm): GuestClient => {
    const arrival =
      guest.notification === 'triggers'
        ? new NotifiedArrival()
        : new PolledArrival({ clock: deps.clock }, { intervalMs: guest.pollingIntervalMs });
    const encrypted = origin.cursor('encrypted');
    const unencrypted = origin.cursor('unencrypted');
    const log = deps.log.child({ vm });
    const client: GuestChannelClient = new GuestChannelClient(
      {
        ...deps,
        log,
        arrival,
        listener: channelListener(origin, log, (area, cursor) => {
          client.acknowledge(area, cursor);
        }),
      },
      {
        address: guest.channel,
        ...(guest.tlsDirectory === undefined ? {} : { tlsDirectory: guest.tlsDirectory }),
        hostInstance,
        registrations: [
          { area: 'encrypted', tables: '**' },
          { area: 'unencrypted', tables: '**' },
        ],
        resumeFrom: {
          ...(encrypted === null ? {} : { encrypted }),
          ...(unencrypted === null ? {} : { unencrypted }),
        },
      },
    );
    origin.setClock(client);
    return client;
  };
}

/** Passes on in the order given; a batch is acknowledged when it is durable. */
function channelListener(
  origin: GuestListener,
  log: Log,
  acknowledge: GuestChannelClient['acknowledge'],
): ChannelListener {
  return {
    rows: async ({ area, rows, cursor }) => {
      const { generation, rowId } = cursor;
      await origin.rows({ area, generation, rows, lost: [], throughRowId: rowId });
      acknowledge(area, cursor);
    },
    lost: async (area, range, cursor) => {
      const { generation, rowId } = cursor;
      // Rejected when the commit fails: no row behind it is taken, so the guest is asked for it again.
      await origin.rows({ area, generation, rows: [], lost: [range], throughRowId: rowId });
      acknowledge(area, cursor);
    },
    watermark: ({ timeUs }) => {
      origin.watermark(timeUs);
    },
    generationChanged: (area, previous, generation) => {
      log.info('guest-generation-changed', { area, previous, generation });
      origin.generation(area, generation);
    },
    clockStep: ({ wallBeforeUs, wallAfterUs }) => {
      log.info('guest-clock-stepped', { stepUs: wallAfterUs - wallBeforeUs });
    },
    connected: () => {
      origin.connected();
    },
    disconnected: () => {
      origin.disconnected();
    },
  };
}
