import type { RelayedVm } from '../../common/control/relay-answer.ts';
import type { Log } from '../../common/runtime/log.ts';
import { decodeFrame } from '../../common/wire/frame-codec.ts';
import type { Status } from '../../common/wire/frame.ts';
import type { LogEpoch } from '../log/frame-log.ts';
import { streamKey } from '../stream-key.ts';
import type { RelayLog } from './relay-log.ts';

/** The newest frame of each stream is enough: every frame of a status stream says everything. */
const framesBackMax = 8;

/**
 * What the status streams say of each VM that passes through, though the data streams may be sealed: that it runs, is
 * suspended, silent, dead or ended (FI V), and how far its data stream is at its origin and here.
 */
export function relayedVms(log: RelayLog, warnings: Log): Omit<RelayedVm, 'delays'>[] {
  const epochs = log.epochs();
  const newest = new Map<string, LogEpoch>();
  for (const epoch of epochs) {
    const key = streamKey(epoch.stream);
    const before = newest.get(key);
    if (before === undefined || before.epoch.number <= epoch.epoch.number) newest.set(key, epoch);
  }
  const vms = new Set(epochs.map(({ stream }) => stream.vm));
  return [...vms].toSorted().map((vm) => {
    const data = newest.get(streamKey({ vm, kind: 'data' }));
    const statusEpoch = newest.get(streamKey({ vm, kind: 'status' }));
    const said = statusEpoch === undefined ? undefined : newestStatus(log, statusEpoch, warnings);
    return {
      vm,
      from: sourceOf(log, data ?? statusEpoch),
      state: said?.isEnded === true ? 'ended' : (said?.status?.vmState ?? 'unknown'),
      reportedAtUs: said?.producedAtUs ?? null,
      originHead: said?.status?.head?.seq ?? null,
      epoch: data?.epoch.number ?? null,
      head: data?.lastSeq ?? 0,
    };
  });
}

function sourceOf(log: RelayLog, known: LogEpoch | undefined): string | null {
  return known === undefined ? null : (log.sourceOf(known.stream, known.epoch) ?? null);
}

interface Said {
  readonly status: Status | undefined;
  /** The stream was closed in order: the VM is no longer monitored. */
  readonly isEnded: boolean;
  readonly producedAtUs: number;
}

function newestStatus(
  log: RelayLog,
  { stream, epoch, lastSeq }: LogEpoch,
  warnings: Log,
): Said | undefined {
  const range = { fromSeq: Math.max(1, lastSeq - framesBackMax), throughSeq: lastSeq };
  let newest: { readonly isEnded: boolean; readonly producedAtUs: number } | undefined;
  for (const { bytes, seq } of log
    .read(stream, epoch, range, Number.POSITIVE_INFINITY)
    .toReversed()) {
    const decoded = decodeFrame(bytes);
    if (!decoded.ok) {
      warnings.warn('status-frame-not-decodable', {
        stream: streamKey(stream),
        seq,
        ...decoded.problem,
      });
      continue;
    }
    const { header, records } = decoded.frame;
    const isEnded = records.some(({ kind }) => kind === 'epoch-closed');
    newest ??= { isEnded, producedAtUs: header.producedAtUs };
    const status = records.findLast((record) => record.kind === 'status');
    if (status !== undefined) return { ...newest, status };
  }
  return newest?.isEnded === true ? { ...newest, status: undefined } : undefined;
}
