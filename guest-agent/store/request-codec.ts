import assert from 'node:assert';

import { areas } from '../../common/channel/area.ts';
import {
  type FileAttributes,
  type FileLocation,
  type StoreOutcome,
  type StoreRequest,
} from './store-request.ts';

const kinds = [
  'save',
  'append',
  'publish',
  'rename',
  'put-file',
  'put-directory',
  'remove',
] as const;

const emptyAttributes: FileAttributes = {
  mode: 0,
  uid: 0,
  gid: 0,
  accessedAtUs: 0,
  modifiedAtUs: 0,
};
const emptyLocation: FileLocation = { area: 'unencrypted', path: '' };
const emptyContent = new Uint8Array();

/** Everything a request can carry, so that one layout serves all kinds. */
interface RequestRecord {
  readonly kind: StoreRequest['kind'];
  readonly token: bigint | null;
  readonly flags: readonly boolean[];
  readonly handle: number;
  readonly file: number;
  /** replaced, truncatedToBytes or writtenBytes; null is written as -1. */
  readonly optional: number | null;
  readonly second: number | null;
  readonly attributes: FileAttributes;
  readonly savedAtUs: number;
  readonly location: FileLocation;
  readonly otherArea: FileLocation['area'];
  /** filePath, or where a rename leads; null is written as a flag. */
  readonly otherPath: string | null;
  readonly content: Uint8Array;
}

/** Bytes before the paths and the content. */
const fixedBytes = 96;

/** The most bytes that `request` can take. */
export function requestBytesMax(request: StoreRequest): number {
  const { location, otherPath, content } = flatten(request);
  return fixedBytes + 3 * (location.path.length + (otherPath?.length ?? 0)) + content.byteLength;
}

/** Writes `request` into `target`; returns its length. Layout: fixed fields, path, other path, content. */
export function encodeRequest(request: StoreRequest, target: Buffer): number {
  const record = flatten(request);
  target[0] = kinds.indexOf(record.kind);
  target[1] =
    (record.token === null ? 0 : 1) |
    (record.otherPath === null ? 0 : 2) |
    (record.flags[0] === true ? 4 : 0) |
    (record.flags[1] === true ? 8 : 0);
  target[2] = areas.indexOf(record.location.area);
  target[3] = areas.indexOf(record.otherArea);
  target.writeUInt32LE(record.attributes.mode, 4);
  target.writeUInt32LE(record.attributes.uid, 8);
  target.writeUInt32LE(record.attributes.gid, 12);
  target.writeBigUInt64LE(record.token ?? 0n, 16);
  target.writeDoubleLE(record.handle, 24);
  target.writeDoubleLE(record.file, 32);
  target.writeDoubleLE(record.optional ?? -1, 40);
  target.writeDoubleLE(record.second ?? -1, 48);
  target.writeDoubleLE(record.attributes.accessedAtUs, 56);
  target.writeDoubleLE(record.attributes.modifiedAtUs, 64);
  target.writeDoubleLE(record.savedAtUs, 72);
  const pathBytes = target.write(record.location.path, fixedBytes, 'utf8');
  const otherStart = fixedBytes + pathBytes;
  const otherBytes =
    record.otherPath === null ? 0 : target.write(record.otherPath, otherStart, 'utf8');
  target.writeUInt32LE(pathBytes, 80);
  target.writeUInt32LE(otherBytes, 84);
  target.writeUInt32LE(record.content.byteLength, 88);
  target.set(record.content, otherStart + otherBytes);
  return otherStart + otherBytes + record.content.byteLength;
}

/** The request in `source`; its content is a copy. */
export function decodeRequest(source: Buffer): StoreRequest {
  const flags = source[1] ?? 0;
  const otherStart = fixedBytes + source.readUInt32LE(80);
  const contentStart = otherStart + source.readUInt32LE(84);
  const contentEnd = contentStart + source.readUInt32LE(88);
  return unflatten({
    kind: kinds[source[0] ?? 0] ?? 'publish',
    token: (flags & 1) === 0 ? null : source.readBigUInt64LE(16),
    flags: [(flags & 4) !== 0, (flags & 8) !== 0],
    handle: source.readDoubleLE(24),
    file: source.readDoubleLE(32),
    optional: orNull(source.readDoubleLE(40)),
    second: orNull(source.readDoubleLE(48)),
    attributes: {
      mode: source.readUInt32LE(4),
      uid: source.readUInt32LE(8),
      gid: source.readUInt32LE(12),
      accessedAtUs: source.readDoubleLE(56),
      modifiedAtUs: source.readDoubleLE(64),
    },
    savedAtUs: source.readDoubleLE(72),
    location: {
      area: areas[source[2] ?? 0] ?? 'unencrypted',
      path: source.toString('utf8', fixedBytes, otherStart),
    },
    otherArea: areas[source[3] ?? 0] ?? 'unencrypted',
    otherPath: (flags & 2) === 0 ? null : source.toString('utf8', otherStart, contentStart),
    content: Buffer.from(source.subarray(contentStart, contentEnd)),
  });
}

/** Bytes of one outcome. */
export const outcomeBytes = 32;

export function encodeOutcome(outcome: StoreOutcome, target: Buffer): number {
  target.writeInt32LE(outcome.result, 0);
  target.writeInt32LE(kinds.indexOf(outcome.kind), 4);
  target.writeDoubleLE(outcome.file, 8);
  target.writeDoubleLE(outcome.handle, 16);
  target.writeDoubleLE(outcome.sizeBytes, 24);
  return outcomeBytes;
}

export function decodeOutcome(source: Buffer): StoreOutcome {
  const kind = kinds[source.readInt32LE(4)];
  assert(kind !== undefined, 'an outcome of a known kind');
  return {
    kind,
    file: source.readDoubleLE(8),
    handle: source.readDoubleLE(16),
    result: source.readInt32LE(0),
    sizeBytes: source.readDoubleLE(24),
  };
}

function flatten(request: StoreRequest): RequestRecord {
  const base = {
    kind: request.kind,
    token: 'token' in request ? request.token : null,
    flags: [] as readonly boolean[],
    handle: 'handle' in request ? request.handle : 0,
    file: 'file' in request ? request.file : 0,
    optional: null,
    second: null,
    attributes: 'attributes' in request ? request.attributes : emptyAttributes,
    savedAtUs: 'savedAtUs' in request ? request.savedAtUs : 0,
    location: 'location' in request ? request.location : emptyLocation,
    otherArea: 'unencrypted' as const,
    otherPath: 'filePath' in request ? request.filePath : null,
    content: emptyContent,
  };
  switch (request.kind) {
    case 'save':
      return {
        ...base,
        flags: [request.holdsNewName, request.publishes],
        optional: request.replaced,
        content: request.content,
      };
    case 'append':
      return {
        ...base,
        flags: [request.endsUnfinished, request.publishes],
        optional: request.writtenBytes,
        second: request.resentBytes,
        content: request.lines,
      };
    case 'rename':
      return {
        ...base,
        flags: [request.saves],
        optional: request.replaced,
        location: request.from,
        otherArea: request.to.area,
        otherPath: request.to.path,
      };
    case 'put-file':
      return { ...base, optional: request.truncatedToBytes };
    case 'publish':
    case 'put-directory':
    case 'remove':
    default:
      return base;
  }
}

function unflatten(record: RequestRecord): StoreRequest {
  const { kind, token, handle, file, location, attributes, savedAtUs } = record;
  const [firstFlag = false, publishes = false] = record.flags;
  // What a save and an append have in common.
  const { otherPath: filePath } = record;
  const written = { token, handle, file, location, attributes, savedAtUs, filePath, publishes };
  switch (kind) {
    case 'save':
      return {
        kind,
        ...written,
        replaced: record.optional,
        content: record.content,
        holdsNewName: firstFlag,
      };
    case 'append':
      return {
        kind,
        ...written,
        writtenBytes: record.optional,
        resentBytes: record.second ?? 0,
        lines: record.content,
        endsUnfinished: firstFlag,
      };
    case 'rename':
      return {
        kind,
        token,
        file,
        savedAtUs,
        from: location,
        to: { area: record.otherArea, path: record.otherPath ?? '' },
        replaced: record.optional,
        saves: firstFlag,
      };
    case 'publish':
      return { kind, token, handle };
    case 'put-file':
      return { kind, file, location, attributes, truncatedToBytes: record.optional };
    case 'put-directory':
      return { kind, file, location, attributes };
    case 'remove':
    default:
      return { kind: 'remove', token, file, location };
  }
}

function orNull(value: number): number | null {
  return value < 0 ? null : value;
}
