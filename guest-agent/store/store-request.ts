import type { Area } from '../../common/channel/area.ts';
import type { HandleId, ReplyToken } from '../fuse/file-system.ts';

/** A file's identity over renames and restarts; the same number as its FUSE node. */
export type FileId = number;

/** What a file or directory is besides its bytes. */
export interface FileAttributes {
  /** Type and permission bits, as st_mode. */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly accessedAtUs: number;
  readonly modifiedAtUs: number;
}

/** Where a file is: its area and its path below it, without a leading slash; the path is the table's name. */
export interface FileLocation {
  readonly area: Area;
  readonly path: string;
}

/**
 * What the file system asks of the store thread, in the order it happened. Requests with a token are answered
 * through the ReplySink after the commit that holds them; the others are durable with the next commit.
 *
 * A save's life:   save --commit--> held --(publish | hold time | restart)--> published
 *                    ^---- a later save of the same handle replaces it ----/
 */
export type StoreRequest =
  | SaveRequest
  | AppendRequest
  | PublishRequest
  | RenameRequest
  | PutFileRequest
  | PutDirectoryRequest
  | RemoveRequest;

/** The whole content of one handle, to be one save of the file. */
export interface SaveRequest {
  readonly kind: 'save';
  /** null when nobody waits: a handle that is dirty at RELEASE. */
  readonly token: ReplyToken | null;
  /** 0 for a temporary file that was renamed onto `location`. */
  readonly handle: HandleId;
  readonly file: FileId;
  /** The table that takes the rows. */
  readonly location: FileLocation;
  /**
   * Where the file is now: `location.path`, or another path when it was rotated away under an open handle. null when it
   * has no name any more (unlinked, replaced): rows only, no content is kept.
   */
  readonly filePath: string | null;
  /** The file that was at `location` and ends if this succeeds: a temporary file was renamed over it. */
  readonly replaced: FileId | null;
  readonly attributes: FileAttributes;
  readonly content: Uint8Array;
  readonly savedAtUs: number;
  /** The file is new and was made with O_EXCL: publish only after `newNameHoldMs`, as a rename may follow. */
  readonly holdsNewName: boolean;
  /** Publish with this commit: the handle is being released. */
  readonly publishes: boolean;
}

/** Bytes written at the end of the file through an O_APPEND handle, ending in a completed line. */
export interface AppendRequest {
  readonly kind: 'append';
  readonly token: ReplyToken | null;
  /** Answered in the WRITE reply; null when the token is a FLUSH. */
  readonly writtenBytes: number | null;
  readonly handle: HandleId;
  readonly file: FileId;
  /** As in a SaveRequest. */
  readonly location: FileLocation;
  /** As in a SaveRequest. */
  readonly filePath: string | null;
  readonly attributes: FileAttributes;
  /** The lines that become rows, complete but perhaps the last (a FLUSH with an unfinished line). */
  readonly lines: Uint8Array;
  /**
   * How many bytes at the start of `lines` this handle's previous append ended with, unfinished. They are in the file
   * already; the line's held row, if still held, is replaced.
   */
  readonly resentBytes: number;
  /** True when `lines` ends in an unfinished line: its rows are held like a save's until published. */
  readonly endsUnfinished: boolean;
  /** Publish the unfinished line with this commit: fsync. The line may go on all the same, as a row of its own. */
  readonly publishes: boolean;
  readonly savedAtUs: number;
}

/** The handle's save is over: RELEASE (no token) or fsync. */
export interface PublishRequest {
  readonly kind: 'publish';
  readonly token: ReplyToken | null;
  readonly handle: HandleId;
}

/** A file moves. Its held save moves to the new table instead of being published under the old name. */
export interface RenameRequest {
  readonly kind: 'rename';
  readonly token: ReplyToken | null;
  /** The moved file or directory; for a directory every entry below it is listed by its own request. */
  readonly file: FileId;
  readonly from: FileLocation;
  readonly to: FileLocation;
  /** The file that was at `to`, which ends; null when there was none. */
  readonly replaced: FileId | null;
  /** Renaming onto a KPI name is a save under that name; onto a rotation name, or of a directory, never. */
  readonly saves: boolean;
  readonly savedAtUs: number;
}

/** A file that has no save yet exists, its attributes changed, or it was truncated. Never a save. */
export interface PutFileRequest {
  readonly kind: 'put-file';
  readonly file: FileId;
  readonly location: FileLocation;
  readonly attributes: FileAttributes;
  /** The content that readers see is cut, or extended with NUL bytes, to this size; null leaves it. */
  readonly truncatedToBytes: number | null;
}

export interface PutDirectoryRequest {
  readonly kind: 'put-directory';
  readonly file: FileId;
  readonly location: FileLocation;
  readonly attributes: FileAttributes;
}

/** unlink or rmdir. The table stays; a held save is published. */
export interface RemoveRequest {
  readonly kind: 'remove';
  readonly token: ReplyToken | null;
  readonly file: FileId;
  readonly location: FileLocation;
}

/** What became of a request with `file`; reaches the file system before the kernel gets the reply. */
export interface StoreOutcome {
  readonly kind: StoreRequest['kind'];
  readonly file: FileId;
  readonly handle: HandleId;
  /** 0 or a negated errno: EINVAL not CSV, EFBIG, ENOSPC database full, EAGAIN a reader held a lock, EROFS, EIO. */
  readonly result: number;
  /** The file's size after it: a logger's content may have been compacted. */
  readonly sizeBytes: number;
}

/** The file system's end of the queue to the store thread. */
export interface StoreClient {
  /** Copies the request into the queue; blocks while it is full (the disk is the bound). */
  submit(request: StoreRequest): void;
  /** Calls `take` for every outcome that has arrived, oldest first; never blocks. */
  drain(take: (outcome: StoreOutcome) => void): void;
}

/** What is there at start, for rebuilding the tree. */
export interface PersistentFile {
  readonly file: FileId;
  readonly location: FileLocation;
  readonly isDirectory: boolean;
  readonly attributes: FileAttributes;
  readonly sizeBytes: number;
}

/** Reads what is committed, from any thread, through a connection of its own. */
export interface ContentReader {
  list(): readonly PersistentFile[];
  /** The bytes of the file's last save; empty when it has none. */
  content(area: Area, file: FileId): Uint8Array;
}

/** Where the store thread answers deferred requests. */
export interface ReplySink {
  /** `result` 0 or a negated errno; `writtenBytes` for a WRITE that succeeded. Must not throw. */
  reply(token: ReplyToken, result: number, writtenBytes: number | null): void;
}
