import { statSync } from 'node:fs';

/**
 * Tells a file from any other that ever has its path on this machine: inode number and time of birth, as a file system
 * gives the number of a removed file to the next one. Without times of birth (0 there) the number alone.
 * @throws the system's error when there is no such file
 */
export function fileIdentity(path: string): string {
  const { ino, birthtimeNs } = statSync(path, { bigint: true });
  return `${ino}/${birthtimeNs}`;
}
