import type { Epoch, StreamId } from '../common/wire/frame.ts';

/** A stream as a key of maps; VM ids contain no slash. */
export function streamKey(stream: StreamId): string {
  return `${stream.vm}/${stream.kind}`;
}

/** An epoch of a stream as a key of maps. */
export function epochKey(stream: StreamId, epoch: Epoch): string {
  return `${stream.vm}/${stream.kind}/${epoch.number}/${epoch.nonce}`;
}
