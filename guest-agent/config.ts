import { z } from 'zod';

import { socketPathProblem } from '../common/control/control-answer.ts';
import { unresponsiveMaxMsDefault } from './supervisor/agent-watch.ts';

const mebibyte = 2 ** 20;

function bytes(defaultBytes: number, minBytes: number, maxBytes: number, description: string) {
  return z.int().min(minBytes).max(maxBytes).default(defaultBytes).describe(description);
}

function count(defaultCount: number, maxCount: number, description: string) {
  return z.int().min(1).max(maxCount).default(defaultCount).describe(description);
}

function durationMs(defaultMs: number, maxMs: number, description: string) {
  return z.int().min(0).max(maxMs).default(defaultMs).describe(description);
}

const globs = z.array(z.string().min(1).max(256)).max(256);

const filesSchema = z.strictObject({
  areaMode: z
    .string()
    .regex(/^[0-7]{3,4}$/, 'permission bits in octal, such as "1777"')
    .default('1777')
    .describe('Permission bits of encrypted/ and unencrypted/, in octal.'),
  fileBytesMax: bytes(
    mebibyte,
    4_096,
    8 * mebibyte,
    'Bytes of one file; a write beyond is EFBIG, a logger that grows beyond is compacted.',
  ),
  filesMax: count(10_000, 1_000_000, 'Files and directories in all; one more is ENOSPC.'),
  directoriesMax: count(1_000, 100_000, 'Directories below the two areas; one more is ENOSPC.'),
  handlesMax: count(4_096, 65_536, 'Open files; one more is ENFILE.'),
  pathBytesMax: count(
    1_024,
    4_096,
    'Bytes of a path below its area; a longer one is ENAMETOOLONG.',
  ),
  scratchBytesMax: bytes(
    32 * mebibyte,
    4_096,
    1_024 * mebibyte,
    "Bytes of editors' and copiers' temporary files, held in memory; more is ENOSPC.",
  ),
  bufferBytesMax: bytes(
    64 * mebibyte,
    mebibyte,
    1_024 * mebibyte,
    'Bytes that open files hold before they are saved; more is ENOSPC.',
  ),
  cacheBytesMax: bytes(
    8 * mebibyte,
    0,
    1_024 * mebibyte,
    'Bytes of file contents kept for readers; others are read from the database.',
  ),
  scratchNames: globs.optional().describe('Globs of names that never become tables.'),
  exclusiveScratchNames: globs
    .optional()
    .describe('Globs of names that never become tables when the file was made with O_EXCL.'),
  rotationNames: globs.optional().describe('Globs of names that log rotation renames to.'),
});

const storeSchema = z.strictObject({
  synchronous: z
    .enum(['FULL', 'NORMAL', 'OFF'])
    .default('FULL')
    .describe('What a save survives: FULL a power cut, NORMAL a crash of the agent.'),
  busyMaxMs: durationMs(250, 60_000, "Wait for another program's lock before EAGAIN; ms."),
  publishHoldMs: durationMs(
    1_000,
    60_000,
    'A save that is not released is published this long after its last flush; ms.',
  ),
  newNameHoldMs: durationMs(
    300,
    60_000,
    'A new file made with O_EXCL is published no sooner, as a rename may follow; ms.',
  ),
  overtakeGraceMs: durationMs(
    3,
    1_000,
    'How long a held save may keep later ones from the host before it is moved aside; ms.',
  ),
  columnsMax: count(500, 1_900, 'Columns of one table; more is EINVAL.'),
  fieldCharactersMax: count(65_536, mebibyte, 'Characters of one field; more is EINVAL.'),
  tablesMax: count(10_000, 100_000, 'Tables of one database; one more is ENOSPC.'),
  quarantineBytesMax: bytes(
    4 * mebibyte,
    0,
    1_024 * mebibyte,
    'Bytes of refused saves that are kept for a look; the oldest go first.',
  ),
  quarantineAgeMaxMs: durationMs(
    7 * 24 * 3_600_000,
    365 * 24 * 3_600_000,
    'How long refused saves are kept; ms.',
  ),
  databaseBytesMax: bytes(
    512 * mebibyte,
    4 * mebibyte,
    2 ** 40,
    'Bytes of one database with its WAL; acknowledged rows are pruned first.',
  ),
  walBytesMax: bytes(64 * mebibyte, mebibyte, 2 ** 40, 'Part of databaseBytesMax for the WAL.'),
  checkpointBytes: bytes(
    4 * mebibyte,
    64 * 1_024,
    2 ** 40,
    'Bytes of WAL after which it is copied into the database under load, not only when idle.',
  ),
  headers: z
    .array(
      z.strictObject({
        pattern: z.string().min(1).max(512).describe('Over paths below unencrypted/; * and **.'),
        header: z.enum(['auto', 'always', 'never']).describe('Whether the first line is labels.'),
      }),
    )
    .max(256)
    .default([])
    .describe('Which files have labels in their first line; the first match decides.'),
});

/** Configuration of the guest agent: one VM's mount, databases and channel to its host. */
export const guestAgentConfigSchema = z
  .strictObject({
    mountPath: z.string().min(1).describe('Where the file system is mounted; an empty directory.'),
    dataDirectory: z.string().min(1).describe('Holds encrypted.db and unencrypted.db.'),
    fuseBackend: z
      .enum(['dev-fuse', 'fuse-native'])
      .default('dev-fuse')
      .describe('dev-fuse speaks the kernel protocol itself; fuse-native needs libfuse2.'),
    unresponsiveMaxMs: z
      .int()
      .min(1_000)
      .max(3_600_000)
      .default(unresponsiveMaxMsDefault)
      .describe('A dev-fuse agent that hangs this long is killed and started again; ms.'),
    controlSocket: z
      .string()
      .min(1)
      .superRefine((path, context) => {
        const message = socketPathProblem(path);
        if (message !== undefined) context.addIssue({ code: 'custom', message });
      })
      .describe('The unix socket of `isobar guest status`.'),
    channel: z
      .strictObject({
        address: z
          .string()
          .regex(/^(?:unix|virtio|tcp):.+$/, 'unix:PATH, virtio:PATH or tcp:HOST:PORT')
          .describe('Where the host reaches this agent: unix:PATH, virtio:PATH or tcp:HOST:PORT.'),
        tlsDirectory: z
          .string()
          .min(1)
          .optional()
          .describe('ca.pem, cert.pem and key.pem for mutual TLS; with tcp: only.'),
        watermarkIntervalMs: z
          .int()
          .min(10)
          .max(60_000)
          .default(250)
          .describe('How often the host is told that nothing older will come; ms.'),
      })
      .describe('The guest channel.'),
    files: filesSchema.prefault({}).describe('The file system: bounds and names.'),
    store: storeSchema.prefault({}).describe('The databases: durability, hold times, bounds.'),
  })
  .refine(
    ({ channel }) => channel.tlsDirectory === undefined || channel.address.startsWith('tcp:'),
    { path: ['channel', 'tlsDirectory'], message: 'only tcp: channels use TLS' },
  )
  .refine(({ store }) => store.walBytesMax < store.databaseBytesMax, {
    path: ['store', 'walBytesMax'],
    message: 'must be below store.databaseBytesMax',
  });

export type GuestAgentConfig = z.output<typeof guestAgentConfigSchema>;
