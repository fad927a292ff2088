import { open, readFile } from 'node:fs/promises';

import type { Command } from 'commander';

import { OperatingError } from '../../common/runtime/operating-error.ts';
import type { CommandContext } from '../context.ts';
import { UsageError } from '../usage-error.ts';
import { examples } from './examples.ts';
import { repeatable } from './repeatable.ts';

interface SealOptions {
  readonly to: readonly string[];
  readonly output?: string;
}

interface UnsealOptions {
  readonly key: string;
  readonly cert?: readonly string[];
  readonly output?: string;
}

/** Files of keys and certificates are small; more is a wrong file. */
const pemBytesMax = 65_536;

/** What was sealed is for its reader alone when it is opened. */
const secretMode = 0o600;
/** Less the umask. */
const publicMode = 0o666;

/** `isobar seal` and `isobar unseal`: for applications what `openssl cms -encrypt` and `-decrypt` do, with safe choices. */
export function addSealCommands(program: Command, context: CommandContext): void {
  const outputOption = [
    '-o, --output <file>',
    'write there instead of to standard output',
  ] as const;
  const seal = program
    .command('seal')
    .description('encrypt a file for the primary site: a CMS envelope in DER, for encrypted/')
    .argument('[file]', 'what to encrypt; - or nothing reads standard input', '-')
    .requiredOption(
      '--to <pem>',
      'certificate or public key of a reader, in PEM; may be repeated',
      repeatable,
    )
    .option(...outputOption)
    .action(async (file: string, _options: unknown, self: Command) => {
      await sealFile(file, self.optsWithGlobals<SealOptions>(), context);
    });
  examples(seal, [
    ['echo 42 | isobar seal --to primary.pem -o /var/lib/isobar/mount/encrypted/users', ''],
  ]);
  const unseal = program
    .command('unseal')
    .description('decrypt a CMS envelope in DER')
    .argument('[file]', 'the envelope; - or nothing reads standard input', '-')
    .requiredOption('--key <pem>', 'private key of a reader, in PEM without a pass phrase')
    .option('--cert <pem>', 'its certificate, if it has one; may be repeated', repeatable)
    .option(...outputOption)
    .action(async (file: string, _options: unknown, self: Command) => {
      await unsealFile(file, self.optsWithGlobals<UnsealOptions>(), context);
    });
  examples(unseal, [['isobar unseal --key primary.key users.der', '']]);
}

async function sealFile(
  file: string,
  { to, output }: SealOptions,
  context: CommandContext,
): Promise<void> {
  refuseTerminal(output, context);
  // Loaded here, so that no other command waits for it.
  const { envelopeBytesMax, sealEnvelope } = await import('../../common/sealing/cms-envelope.ts');
  const { parseRecipients } = await import('../../common/sealing/recipients.ts');
  const pems = await Promise.all(to.map((path) => readPem(path)));
  const recipients = parseRecipients(pems.join('\n'));
  const content = await readInput(file, envelopeBytesMax, context);
  let envelope: Uint8Array;
  try {
    envelope = sealEnvelope(content, recipients);
  } catch (cause) {
    if (!(cause instanceof RangeError)) throw cause;
    throw new OperatingError('too-large', cause.message, { cause });
  }
  await write(envelope, output, publicMode, context);
}

async function unsealFile(
  file: string,
  { key, cert = [], output }: UnsealOptions,
  context: CommandContext,
): Promise<void> {
  const { envelopeBytesMax, openEnvelope } = await import('../../common/sealing/cms-envelope.ts');
  const { parseRecipientKey } = await import('../../common/sealing/recipients.ts');
  const certificates = await Promise.all(cert.map((path) => readPem(path)));
  const recipientKey = parseRecipientKey(await readPem(key), certificates);
  const envelope = await readInput(file, envelopeBytesMax, context);
  const opened = openEnvelope(envelope, [recipientKey]);
  if (!opened.ok) {
    const { code, rule } = opened.problem;
    throw new OperatingError(code, `${file === '-' ? 'standard input' : file}: ${code}: ${rule}`);
  }
  await write(opened.content, output, secretMode, context);
}

function refuseTerminal(output: string | undefined, context: CommandContext): void {
  if (output !== undefined || context.output.columns === undefined) return;
  throw new UsageError('an envelope is binary: add --output FILE, or send it to a file or a pipe');
}

async function readPem(path: string): Promise<string> {
  const content = await readBounded(path, pemBytesMax);
  return Buffer.from(content).toString('utf8');
}

async function readInput(
  file: string,
  bytesMax: number,
  context: CommandContext,
): Promise<Uint8Array> {
  if (file !== '-') return readBounded(file, bytesMax);
  const content = await context.readStandardInputBytes(bytesMax);
  if (content.length > bytesMax) throw tooLarge('standard input', bytesMax);
  return content;
}

async function readBounded(path: string, bytesMax: number): Promise<Uint8Array> {
  let content: Uint8Array;
  try {
    content = await readFile(path);
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new OperatingError('file-unreadable', `${path} can't be read: ${reason}`, { cause });
  }
  if (content.length > bytesMax) throw tooLarge(path, bytesMax);
  return content;
}

function tooLarge(name: string, bytesMax: number): OperatingError {
  return new OperatingError('too-large', `${name} is larger than ${bytesMax} bytes`);
}

async function write(
  content: Uint8Array,
  output: string | undefined,
  mode: typeof publicMode | typeof secretMode,
  context: CommandContext,
): Promise<void> {
  if (output === undefined) {
    await context.output.bytes(content);
    return;
  }
  try {
    const file = await open(output, 'w', mode);
    try {
      // Before the content: a file that was there has the mode that it had. A pipe or a terminal is left as it is.
      if (mode === secretMode && (await file.stat()).isFile()) await file.chmod(mode);
      await file.writeFile(content);
    } finally {
      await file.close();
    }
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new OperatingError('file-not-written', `${output} can't be written: ${reason}`, {
      cause,
    });
  }
}
