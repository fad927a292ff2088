import { RangeSet, type SeqRange } from '../../broker/range-set.ts';
import type { Database } from '../../common/sqlite/database.ts';
import type { VmState } from '../../common/wire/frame.ts';
import type { LossReason } from '../../common/wire/loss-reason.ts';

/**
 * How an epoch of a data stream ends. `open`: it is the newest and the VM is heard. `closed`: its writer said so.
 * `unknown`: it was never closed, and a later one began or the VM is no longer heard; more may have been in it.
 */
export type EpochEnd = 'open' | 'closed' | 'unknown';

export interface EpochStatus {
  readonly number: number;
  /** Why it began; null while its first frame is not here. */
  readonly reason: string | null;
  readonly end: EpochEnd;
  /** The newest frame that is known to exist. */
  readonly headSeq: number;
  /** Known to exist, neither here nor declared lost; at most {@link gapsShownMax}, the oldest. */
  readonly gaps: readonly SeqRange[];
  readonly missingFrames: number;
  /** Frames that are lost: given up, and not here after all. */
  readonly lostFrames: number;
  /** At most {@link gapsShownMax}, the oldest. */
  readonly lost: readonly LostStatus[];
}

export interface LostStatus extends SeqRange {
  readonly reason: LossReason;
  /** The relation of the neighbour that declared it; null: found here. */
  readonly declaredBy: string | null;
  /** Its signature is kept. */
  readonly isSigned: boolean;
}

export interface ReportedLoss {
  /** The guest's store, or a stream log on the way. */
  readonly place: string;
  /** Rows of a guest store, frames of a log. */
  readonly count: number;
}

export interface VmStatus {
  readonly vm: string;
  /**
   * `ended` when its status stream was closed in order: the VM was removed. Else `unknown` when that stream was not heard
   * for {@link statusSilenceMaxMs}.
   */
  readonly state: VmState | 'ended';
  /** What the status stream said last, however long ago; null before its first frame. */
  readonly reportedState: VmState | null;
  readonly reportedAtUs: number | null;
  /** Nothing older than this comes; null before the guest was heard. */
  readonly watermarkUs: number | null;
  /** Of the data stream, newest first; at most {@link epochsShownMax}. */
  readonly epochs: readonly EpochStatus[];
  /** Everything that is known to be lost, since the store was made. */
  readonly losses: readonly ReportedLoss[];
}

export const epochsShownMax = 8;
export const gapsShownMax = 16;
/** Three times the interval at which a status stream speaks by default. */
export const statusSilenceMaxMs = 15_000;

interface StatusRow {
  readonly vm: string;
  readonly state: VmState | null;
  readonly watermark_us: number | null;
  readonly produced_at_us: number | null;
  /** By our clock; null when an earlier program stored it. */
  readonly arrived_at_us: number | null;
  /** The last seq of the newest epoch of the status stream; null while that is open, or not here. */
  readonly closed_seq: number | null;
}

interface EpochRow {
  readonly epoch_id: number;
  readonly number: number;
  readonly opened_reason: string | null;
  readonly closed_seq: number | null;
  readonly head_seq: number;
}

/** What the store knows of each VM's streams: whether it runs, what is here, what is missing, what is lost. */
export function readVmStatuses(database: Database, nowUs: number): VmStatus[] {
  const vms = database
    .prepare<[], StatusRow>(
      `SELECT vm, state, watermark_us, produced_at_us, arrived_at_us,
         (SELECT closed_seq FROM epochs WHERE epochs.vm = vms.vm AND kind = 'status'
          ORDER BY number DESC, epoch_id DESC LIMIT 1) AS closed_seq
       FROM (SELECT DISTINCT vm FROM epochs) AS vms LEFT JOIN vm_status USING (vm) ORDER BY vm`,
    )
    .all();
  return vms.map((row) => {
    const isHeard = isYoung(row, nowUs);
    return {
      vm: row.vm,
      state: stateOf(row, isHeard),
      reportedState: row.state,
      reportedAtUs: row.produced_at_us,
      watermarkUs: row.watermark_us,
      epochs: readEpochs(database, row.vm, isHeard),
      losses: database
        .prepare<[string], ReportedLoss>(
          'SELECT place, count FROM loss_totals WHERE vm = ? ORDER BY place',
        )
        .all(row.vm),
    };
  });
}

/**
 * By both clocks: one of the source that is ahead must hide no silence, and whoever keeps frames back must not make a VM
 * look alive. An arrival in the future was before our clock was set back; the next status tells anew.
 */
function isYoung(row: StatusRow, nowUs: number): boolean {
  if (row.produced_at_us === null || row.arrived_at_us === null) return false;
  const silenceMaxUs = statusSilenceMaxMs * 1_000;
  return (
    nowUs - row.produced_at_us <= silenceMaxUs &&
    Math.abs(nowUs - row.arrived_at_us) <= silenceMaxUs
  );
}

function stateOf(row: StatusRow, isHeard: boolean): VmStatus['state'] {
  if (row.closed_seq !== null) return 'ended';
  return isHeard && row.state !== null ? row.state : 'unknown';
}

function readEpochs(database: Database, vm: string, isHeard: boolean): EpochStatus[] {
  const rows = database
    .prepare<[string, number], EpochRow>(
      `SELECT epoch_id, number, opened_reason, closed_seq, head_seq FROM epochs
       WHERE vm = ? AND kind = 'data' ORDER BY number DESC, epoch_id DESC LIMIT ?`,
    )
    .all(vm, epochsShownMax);
  return rows.map((row, index) => {
    const stored = database
      .prepare<[number], SeqRange>(
        'SELECT from_seq AS fromSeq, through_seq AS throughSeq FROM stored_ranges WHERE epoch_id = ?',
      )
      .all(row.epoch_id);
    const lost = readLost(database, row.epoch_id);
    const here = new RangeSet([...stored, ...lost]);
    const headSeq = Math.max(row.head_seq, row.closed_seq ?? 0, here.lastSeq);
    const gaps = headSeq === 0 ? [] : here.gaps(1, headSeq);
    return {
      number: row.number,
      reason: row.opened_reason,
      end: endOf(row, index === 0 && isHeard),
      headSeq,
      gaps: gaps.slice(0, gapsShownMax),
      missingFrames: frameCount(gaps),
      lostFrames: frameCount(lost),
      lost: lost.slice(0, gapsShownMax),
    };
  });
}

function endOf(row: EpochRow, isLiving: boolean): EpochEnd {
  if (row.closed_seq !== null) return 'closed';
  return isLiving ? 'open' : 'unknown';
}

function readLost(database: Database, epochId: number): readonly LostStatus[] {
  return database
    .prepare<[number], SeqRange & Omit<LostStatus, 'isSigned'> & { evidenceId: number | null }>(
      `SELECT from_seq AS fromSeq, through_seq AS throughSeq, reason, declared_by AS declaredBy,
         evidence_id AS evidenceId
       FROM lost_ranges WHERE epoch_id = ? ORDER BY from_seq`,
    )
    .all(epochId)
    .map(({ evidenceId, ...lost }) => ({ ...lost, isSigned: evidenceId !== null }));
}

function frameCount(ranges: readonly SeqRange[]): number {
  return ranges.reduce((sum, { fromSeq, throughSeq }) => sum + throughSeq - fromSeq + 1, 0);
}
