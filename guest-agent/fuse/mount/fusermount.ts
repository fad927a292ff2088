import { accessSync, constants, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { systemErrorCode } from '../../../common/runtime/operating-error.ts';
import type { DescriptorHolder, Inheritance } from './descriptor-holder.ts';
import { MountError } from './mount-error.ts';
import { runProgram } from './run-program.ts';

/*
 * fusermount3 mounts for users that may not, and sends the descriptor of /dev/fuse over a unix socket (SCM_RIGHTS).
 * Node can't receive one, but it can hold it: a descriptor in a socket's queue stays open. So our end of that socket
 * is never read (pauseOnConnect); each agent inherits it, and a few lines of perl, which every Debian has
 * (perl-base is essential), take a copy out of the queue with MSG_PEEK before they become the agent.
 *
 *   fusermount3 --SCM_RIGHTS--> [socket, unread, held here] --inherited--> perl: recvmsg(MSG_PEEK) --exec--> agent
 */

/** Connects to the unix socket named first, then becomes the command, which finds it in _FUSE_COMMFD. */
const connectScript = String.raw`
use Socket; use Fcntl;
socket(my $socket, AF_UNIX, SOCK_STREAM, 0) or die "socket: $!\n";
connect($socket, pack_sockaddr_un(shift)) or die "connect: $!\n";
fcntl($socket, F_SETFD, 0);
$ENV{_FUSE_COMMFD} = fileno($socket);
exec { $ARGV[0] } @ARGV or die "fusermount3: $!\n";
`;

/**
 * Replaces the descriptor named first, a socket, by the descriptor in its queue, then becomes the command. Layouts of
 * msghdr, iovec and cmsghdr are those of 64-bit Linux; the numbers are recvmsg's.
 */
const receiveScript = String.raw`
use POSIX ();
my %recvmsg = (x86_64 => 47, aarch64 => 212, riscv64 => 212, loongarch64 => 212, ppc64le => 342, s390x => 372);
my $number = $recvmsg{(POSIX::uname())[4]} or die "this machine's recvmsg is not known\n";
my $descriptor = shift;
my ($byte, $control, $msgPeek) = ("\0", "\0" x 24, 2);
my $vector = pack('PQ', $byte, 1);
my $message = pack('QQPQPQQ', 0, 0, $vector, 1, $control, 24, 0);
syscall($number, $descriptor + 0, $message, $msgPeek) >= 0 or die "recvmsg: $!\n";
my ($length, $level, $type, $received) = unpack('Qlll', $control);
$length == 20 && $level == 1 && $type == 1 or die "no descriptor came with the message\n";
POSIX::dup2($received, $descriptor) or die "dup2: $!\n";
POSIX::close($received);
exec { $ARGV[0] } @ARGV or die "$ARGV[0]: $!\n";
`;

/** Mounts as the calling user. Private unless /etc/fuse.conf has `user_allow_other`. Throws {@link MountError}. */
export async function mountWithFusermount(path: string): Promise<DescriptorHolder> {
  assertDeviceUsable();
  const isPrivate = mountsArePrivate();
  const options = [
    'rw,nosuid,nodev,default_permissions,fsname=isobar,subtype=isobar',
    ...(isPrivate ? [] : ['allow_other']),
  ].join(',');
  const directory = mkdtempSync(join(tmpdir(), 'isobar-mount-'));
  try {
    const address = join(directory, 'descriptor');
    const { server, accepted } = await acceptOne(address);
    try {
      await runFusermount(path, address, options);
      const socket = await accepted;
      return {
        isPrivate,
        inheritance: inheritSocket(socket),
        close: () => {
          socket.destroy();
        },
      };
    } finally {
      server.close();
    }
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

function inheritSocket(socket: Socket): Inheritance {
  // It holds a descriptor and carries no events: it is no reason to stay alive.
  socket.unref();
  return {
    stdio: socket,
    command: (program, args, descriptor) => ({
      program: 'perl',
      args: ['-e', receiveScript, String(descriptor), program, ...args],
    }),
  };
}

async function acceptOne(
  address: string,
): Promise<{ readonly server: Server; readonly accepted: Promise<Socket> }> {
  const server = createServer({ pauseOnConnect: true });
  const accepted = new Promise<Socket>((resolve) => {
    server.once('connection', resolve);
  });
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(address, resolve);
  });
  return { server, accepted };
}

async function runFusermount(path: string, address: string, options: string): Promise<void> {
  const command = ['fusermount3', '-o', options, '--', path];
  const end = await startPerl(['-e', connectScript, address, ...command]);
  if (end.exitCode === 0) return;
  const context = { path, output: end.output };
  if (/fusermount3: No such file/.test(end.output)) {
    throw new MountError(
      'fuse-missing',
      'fusermount3 is not installed; as root: apt-get install fuse3',
      { context },
    );
  }
  if (/not permitted|permission denied|no write access|user has no/i.test(end.output)) {
    throw new MountError(
      'mount-denied',
      `fusermount3 may not mount on ${path} (${end.output}); the directory must be this user's, ` +
        'fusermount3 must be setuid root, and the kernel must allow it; or run as root',
      { context },
    );
  }
  throw new MountError('mount-failed', `mounting on ${path} failed: ${end.output}`, { context });
}

async function startPerl(args: readonly string[]): Promise<Awaited<ReturnType<typeof runProgram>>> {
  try {
    return await runProgram('perl', args);
  } catch (cause) {
    if (systemErrorCode(cause) !== 'ENOENT') throw cause;
    throw new MountError(
      'fuse-missing',
      'mounting without root needs perl; as root: apt-get install perl-base',
      { cause },
    );
  }
}

/** Throws {@link MountError} when this user may not open /dev/fuse. */
export function assertDeviceUsable(): void {
  try {
    accessSync('/dev/fuse', constants.R_OK | constants.W_OK);
  } catch (cause) {
    if (systemErrorCode(cause) === 'ENOENT') {
      throw new MountError(
        'fuse-missing',
        '/dev/fuse is missing; as root: modprobe fuse (in a container: start it with --device /dev/fuse)',
        { cause },
      );
    }
    throw new MountError(
      'mount-denied',
      'this user may not open /dev/fuse; as root: chmod 666 /dev/fuse, or run as root',
      { cause },
    );
  }
}

/** Whether only this user sees into mounts that it makes: it is not root and lacks `user_allow_other`. */
export function mountsArePrivate(): boolean {
  return process.geteuid?.() !== 0 && !userMayAllowOther();
}

/** fuse.conf(5): the option stands alone on its line. An unreadable file allows nothing. */
function userMayAllowOther(): boolean {
  try {
    return /^[ \t]*user_allow_other[ \t]*$/m.test(readFileSync('/etc/fuse.conf', 'utf8'));
  } catch (error) {
    if (systemErrorCode(error) === 'ENOENT' || systemErrorCode(error) === 'EACCES') return false;
    throw error;
  }
}
