import type { Area, PerArea } from '../../common/channel/area.ts';
import type { GuestRow } from '../../common/channel/guest-row.ts';
import type { LostRange, Registration } from '../../common/channel/message.ts';
import type { Cancel } from '../../common/runtime/clock.ts';

export interface FetchLimits {
  readonly rowsMax: number;
  /** Of the rows' content, about; one row is given even when it is larger alone (a file's bound fits a frame). */
  readonly bytesMax: number;
}

export interface FetchedRows {
  /** Published rows of wanted tables after the row id asked for, ascending. */
  readonly rows: readonly GuestRow[];
  /** Ranges pruned unacknowledged that end after the row id asked for and at or before `throughRowId`, ascending. */
  readonly lost: readonly LostRange[];
  /** Every published row and lost range up to here was looked at; at least the row id asked for. */
  readonly throughRowId: number;
  /** The limits ended the reading before the head. */
  readonly hasMore: boolean;
}

/** Rows of `tables` became fetchable: at a COMMIT that published them. */
export interface Publication {
  readonly area: Area;
  readonly tables: readonly string[];
  /** The head after it. */
  readonly throughRowId: number;
}

/**
 * What the channel needs of the store. Reading calls return at once, on the calling thread, through a read connection;
 * the others only pass the wish on. A row, once below the head, never changes, and no row appears below the head.
 * May throw OperatingError; the host is told and asks again.
 */
export interface RowStore {
  /** Generation ids; constant while the process runs. */
  generations(): PerArea<string>;
  /** The highest published row id; 0 when there is none. */
  head(area: Area): number;
  /** A row that fits no frame (`payloadBytesMax` of common/channel/protocol.ts) is given as a lost range. */
  fetch(
    area: Area,
    afterRowId: number,
    limits: FetchLimits,
    isWanted: (table: string) => boolean,
  ): FetchedRows;
  /**
   * Sets the triggers' tables, replacing earlier ones; an empty list removes all triggers. Once it resolves, each
   * publication of a table that matches is announced; of others it may be. Must not reject.
   */
  registerTables(registrations: readonly Registration[]): Promise<void>;
  /**
   * Rows and lost ranges up to here are durable at the host and may go. A row id that was never given means that the
   * database was rolled back: the store begins a new generation.
   */
  acknowledge(area: Area, throughRowId: number): void;
  /** No row with an older `savedAtUs` will be published any more; read before {@link head}. Guest's wall time. */
  watermarkUs(): number;
  onPublished(listener: (publication: Publication) => void): Cancel;
  /** A range was pruned unacknowledged; it is part of what {@link fetch} returns from now on. */
  onLost(listener: (area: Area, range: LostRange) => void): Cancel;
}
