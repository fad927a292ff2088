import type { Socket } from 'node:net';

/** How a child process gets the connection: what to pass in its stdio, and what to start instead of its command. */
export interface Inheritance {
  readonly stdio: number | Socket;
  /** `descriptor` is the number that `stdio` has in the child, where it is to find /dev/fuse. */
  command(
    program: string,
    args: readonly string[],
    descriptor: number,
  ): { readonly program: string; readonly args: readonly string[] };
}

/** What keeps a connection of /dev/fuse alive in this process. */
export interface DescriptorHolder {
  /** Only the mounting user sees into the mount. */
  readonly isPrivate: boolean;
  readonly inheritance: Inheritance;
  close(): void;
}
