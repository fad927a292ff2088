import { statSync } from 'node:fs';
import { join } from 'node:path';

import { Hono } from 'hono';

import { type Area, areas } from '../common/channel/area.ts';
import type { GuestStatus } from '../common/control/guest-answer.ts';
import type { StageCounts } from '../common/runtime/stage-counters.ts';
import type { ChannelServer } from './channel/channel-server.ts';
import type { FileSystemSnapshot } from './files/kpi-file-system.ts';
import type { StorePart, StoreReport } from './store-part.ts';
import { databaseFileName } from './store/schema.ts';

/** What the file system and its backend count. */
export interface FileSystemReport {
  readonly requests: StageCounts;
  readonly fileSystem: FileSystemSnapshot;
}

export interface ControlApiDependencies {
  readonly mountPath: string;
  readonly dataDirectory: string;
  readonly databaseBytesMax: number;
  readonly store: Pick<StorePart, 'report' | 'reader' | 'head'>;
  readonly channel: Pick<ChannelServer, 'counts' | 'hasHost'>;
  /** Undefined when the file system does not answer. */
  readonly reportFileSystem: () => Promise<FileSystemReport | undefined>;
}

/** Refused saves shown of each area. */
const quarantineShownMax = 20;

/** What `isobar guest status` asks: GET /v1/status, a GuestStatus. */
export function createControlApi(deps: ControlApiDependencies): Hono {
  const app = new Hono();
  app.get('/v1/status', async (context) => {
    const [store, fileSystem] = await Promise.all([deps.store.report(), deps.reportFileSystem()]);
    return context.json(statusOf(deps, store, fileSystem));
  });
  return app;
}

function statusOf(
  deps: ControlApiDependencies,
  store: StoreReport,
  files: FileSystemReport | undefined,
): GuestStatus & Record<string, unknown> {
  const { reader } = deps.store;
  return {
    mount: deps.mountPath,
    hasHost: deps.channel.hasHost,
    stages: {
      ...(files === undefined
        ? {}
        : { requests: files.requests, 'file-system': files.fileSystem.counts }),
      'store/encrypted': storeStage(store, 'encrypted'),
      'store/unencrypted': storeStage(store, 'unencrypted'),
      'guest-channel': deps.channel.counts,
    },
    ...(files === undefined ? {} : { fileSystem: files.fileSystem }),
    databases: areas.map((area) => ({
      area,
      generation: reader.generation(area).generation,
      sizeBytes: databaseBytes(join(deps.dataDirectory, databaseFileName(area))),
      sizeBytesMax: deps.databaseBytesMax,
      unacknowledgedRows: reader.rowCount(
        area,
        store.acknowledgedRowIds[area],
        deps.store.head(area),
      ),
      lostRows: store.counters[area].lostRows,
    })),
    held: store.held.map(({ area, table, savedAtUs, reason }) => ({
      path: `${area}/${table}`,
      sinceUs: savedAtUs,
      reason,
    })),
    quarantine: areas.flatMap((area) =>
      reader.quarantine(area, quarantineShownMax).map((save) => ({
        path: `${area}/${save.path}`,
        atUs: save.refusedAtUs,
        sizeBytes: save.contentBytes,
        reason: `${save.reason}: ${save.message}`,
      })),
    ),
  };
}

/** A refused save was dropped by a rule; one that met a lock, a full disk or a fault failed. */
function storeStage(store: StoreReport, area: Area): StageCounts {
  const { saves, refused, busy, full, failed } = store.counters[area];
  return {
    accepted: saves + refused + busy + full + failed,
    forwarded: saves,
    dropped: refused,
    failed: busy + full + failed,
    lagMs: null,
  };
}

/** A database with its WAL. */
function databaseBytes(path: string): number {
  return [path, `${path}-wal`].reduce(
    (sum, each) => sum + (statSync(each, { throwIfNoEntry: false })?.size ?? 0),
    0,
  );
}
