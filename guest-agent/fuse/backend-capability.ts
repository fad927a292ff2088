/**
 * What a FUSE backend can carry between the kernel and the FileSystem. `dev-fuse` has all of them; what `fuse-native`
 * lacks is lost in libfuse 2's interface by path, or in fuse-native itself. Tests run by capability, so a gap has a name.
 *
 * - `caller-identity`: the file system knows which user calls, so files belong to their makers
 * - `exclusive-create`: O_EXCL reaches the file system
 * - `rename-flags`: renameat2(2) with RENAME_NOREPLACE
 * - `allocate`: fallocate(2)
 * - `shared-mmap`: writable shared mappings are saved
 * - `separate-times`: access and modification time can be set apart, to the microsecond
 * - `non-utf8-names-refused`: EILSEQ rather than a replacement character
 * - `takeover`: an agent that died can be replaced without losing the mount
 */
export const backendCapabilities = [
  'caller-identity',
  'exclusive-create',
  'rename-flags',
  'allocate',
  'shared-mmap',
  'separate-times',
  'non-utf8-names-refused',
  'takeover',
] as const;
export type BackendCapability = (typeof backendCapabilities)[number];

export const backendNames = ['dev-fuse', 'fuse-native'] as const;
export type BackendName = (typeof backendNames)[number];

/** What each backend can do. */
export const capabilitiesOf: Readonly<Record<BackendName, readonly BackendCapability[]>> = {
  'dev-fuse': backendCapabilities,
  'fuse-native': ['non-utf8-names-refused'],
};
