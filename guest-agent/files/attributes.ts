import type { AttributeChange, Attributes } from '../fuse/file-system.ts';
import { modeBits } from './linux.ts';
import type { Node } from './node.ts';

/** Applies all but the size; false when there was nothing else. A new owner takes set-id bits away, as chown(2) says. */
export function applyChange(node: Node, change: AttributeChange, nowUs: number): boolean {
  const { mode, uid, gid, accessedAtUs, modifiedAtUs } = change;
  const hasOwner = uid !== undefined || gid !== undefined;
  const hasTime = accessedAtUs !== undefined || modifiedAtUs !== undefined;
  if (mode === undefined && !hasOwner && !hasTime) return false;
  if (mode !== undefined) {
    node.mode = (node.mode & modeBits.type) | (mode & modeBits.permissions);
  } else if (hasOwner && node.kind === 'file') {
    node.mode = withoutSetId(node.mode);
  }
  node.uid = uid ?? node.uid;
  node.gid = gid ?? node.gid;
  node.accessedAtUs = timeUs(accessedAtUs, nowUs) ?? node.accessedAtUs;
  node.modifiedAtUs = timeUs(modifiedAtUs, nowUs) ?? node.modifiedAtUs;
  node.changedAtUs = nowUs;
  return true;
}

/** The node's attributes as a handle with bytes of its own sees them. */
export function attributesWithSize(node: Node, sizeBytes: number): Attributes {
  return {
    node: node.node,
    mode: node.mode,
    linkCount: node.linkCount,
    uid: node.uid,
    gid: node.gid,
    sizeBytes,
    accessedAtUs: node.accessedAtUs,
    modifiedAtUs: node.modifiedAtUs,
    changedAtUs: node.changedAtUs,
  };
}

function timeUs(time: number | 'now' | undefined, nowUs: number): number | undefined {
  return time === 'now' ? nowUs : time;
}

function withoutSetId(mode: number): number {
  const runsAsGroup = (mode & modeBits.groupExecute) !== 0;
  return mode & ~(modeBits.setUserId | (runsAsGroup ? modeBits.setGroupId : 0));
}
