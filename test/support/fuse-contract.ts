import { execFile } from 'node:child_process';
import {
  chmodSync,
  closeSync,
  ftruncateSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  renameSync,
  rmSync,
  rmdirSync,
  statfsSync,
  statSync,
  symlinkSync,
  truncateSync,
  unlinkSync,
  utimesSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';

import { afterAll, beforeAll, expect, test } from 'vitest';

import {
  type BackendCapability,
  type BackendName,
  capabilitiesOf,
} from '../../guest-agent/fuse/backend-capability.ts';
import { eventually } from './eventually.ts';
import { type MountedBackend, refusedSave } from './mounted-backend.ts';
import { backendObstacle, describeUnless, nobody, rootObstacle } from './requirements.ts';

// oxlint-disable-next-line typescript/strict-void-return -- promisify has a type of its own for execFile
const run = promisify(execFile);

/** Runs a shell script with the mount as its working directory; rejects unless it succeeds. */
async function shell(directory: string, script: string): Promise<string> {
  return (await run('sh', ['-ec', script], { cwd: directory, timeout: 20_000 })).stdout;
}

async function python(directory: string, script: string): Promise<string> {
  return (await run('python3', ['-c', script], { cwd: directory, timeout: 20_000 })).stdout.trim();
}

/** A directory under the mount for each test, so that none sees another's files. */
let mounted: MountedBackend;
function fresh(): string {
  return mkdtempSync(join(mounted.path, 'case-'));
}

/**
 * What every FUSE backend promises over a FileSystem, through a real mount. `mount` serves a file system that
 * refuses `refusedSave` and takes any other bytes. Gaps of a backend are the capabilities that it lacks, by name.
 */
export function describeFuseContract(
  backend: BackendName,
  mount: () => Promise<MountedBackend>,
  variant = '',
): void {
  const obstacle = rootObstacle() ?? backendObstacle(backend);

  describeUnless(obstacle, `${backend}${variant}`, () => {
    beforeAll(async () => {
      mounted = await mount();
    });
    afterAll(async () => {
      await mounted[Symbol.asyncDispose]();
    });
    describeContent();
    describeNames();
    describeReferences();
    describePrograms();
    describeCapabilities(backend);
  });
}

function describeContent(): void {
  test('a reader gets the last save, a writer its own buffer', () => {
    const file = join(fresh(), 'cpu.csv');
    writeFileSync(file, 'old\n');
    const reader = openSync(file, 'r');
    const writer = openSync(file, 'w+');
    writeSync(writer, 'new content\n');
    expect(readFileSync(file, 'utf8')).toBe('old\n');
    expect(readFrom(reader)).toBe('old\n');
    expect(readFrom(writer)).toBe('new content\n');
    closeSync(writer);
    expect(readFrom(reader)).toBe('new content\n');
    closeSync(reader);
  });

  test('a failed close gives its errno, and afterwards content and size are those of the last good save', () => {
    const directory = mkdtempSync(join(mounted.refusingPath, 'case-'));
    const file = join(directory, refusedSave.name);
    const handle = openSync(file, 'w');
    writeSync(handle, refusedSave.content);
    expect(() => {
      closeSync(handle);
    }).toThrow(refusedSave.code);
    expect(statSync(file).size).toBe(0);
    expect(readFileSync(file, 'utf8')).toBe('');
  });

  test('a save of several megabytes arrives whole, and so does one made out of order', () => {
    const file = join(fresh(), 'large');
    const content = Buffer.alloc(5 * 1024 * 1024 + 17, 'isobar');
    writeFileSync(file, content);
    expect(readFileSync(file).equals(content)).toBe(true);
    const handle = openSync(file, 'w');
    for (let offset = 900_000; offset >= 0; offset -= 100_000) {
      writeSync(handle, content, offset, 100_000, offset);
    }
    closeSync(handle);
    expect(readFileSync(file).equals(content.subarray(0, 1_000_000))).toBe(true);
  });

  test('truncation by handle, by path and at open', () => {
    const file = join(fresh(), 'cut');
    writeFileSync(file, '0123456789');
    const handle = openSync(file, 'r+');
    ftruncateSync(handle, 4);
    closeSync(handle);
    expect(readFileSync(file, 'utf8')).toBe('0123');
    truncateSync(file, 2);
    expect(statSync(file).size).toBe(2);
    writeFileSync(file, 'x');
    expect(readFileSync(file, 'utf8')).toBe('x');
  });

  test('appending through O_APPEND handles adds to the last save', () => {
    const file = join(fresh(), 'log');
    for (const line of ['a\n', 'b\n', 'c\n']) writeFileSync(file, line, { flag: 'a' });
    expect(readFileSync(file, 'utf8')).toBe('a\nb\nc\n');
  });

  test('a file that is unlinked while open can still be read and written', () => {
    const directory = fresh();
    const file = join(directory, 'gone');
    writeFileSync(file, 'before');
    const handle = openSync(file, 'r+');
    unlinkSync(file);
    expect(readdirSync(directory)).toEqual([]);
    expect(readFrom(handle)).toBe('before');
    writeSync(handle, 'after!', 0);
    expect(readFrom(handle)).toBe('after!');
    closeSync(handle);
    rmdirSync(directory);
  });
}

function readFrom(handle: number): string {
  const bytes = Buffer.alloc(1_000);
  return bytes.toString('utf8', 0, readSync(handle, bytes, 0, bytes.length, 0));
}

function describeNames(): void {
  test('directories: made, listed, renamed, removed only when empty', () => {
    const directory = fresh();
    mkdirSync(join(directory, 'a'));
    writeFileSync(join(directory, 'a', 'größe'), '1');
    expect(() => rmdirSync(join(directory, 'a'))).toThrow('ENOTEMPTY');
    unlinkSync(join(directory, 'a', 'größe'));
    renameSync(join(directory, 'a'), join(directory, 'b'));
    expect(() => statSync(join(directory, 'a'))).toThrow('ENOENT');
    writeFileSync(join(directory, 'b', 'größe'), '2');
    expect(readdirSync(join(directory, 'b'))).toEqual(['größe']);
    rmSync(join(directory, 'b'), { recursive: true });
    expect(readdirSync(directory)).toEqual([]);
    expect(() => statSync(join(directory, 'b'))).toThrow('ENOENT');
  });

  test('a listing of a thousand long names is complete, and removing while listing skips none', async () => {
    const directory = fresh();
    const names = Array.from({ length: 1_000 }, (_, index) => `${'n'.repeat(100)}-${index}`);
    for (const name of names) writeFileSync(join(directory, name), '');
    expect(readdirSync(directory).toSorted()).toEqual(names.toSorted());
    expect(readdirSync(directory, { withFileTypes: true }).every((entry) => entry.isFile())).toBe(
      true,
    );
    await shell(directory, 'rm -r ./*');
    expect(readdirSync(directory)).toEqual([]);
  });

  test('renaming onto a file replaces it', () => {
    const directory = fresh();
    writeFileSync(join(directory, 'new'), 'new');
    writeFileSync(join(directory, 'kpi'), 'old');
    renameSync(join(directory, 'new'), join(directory, 'kpi'));
    expect(readFileSync(join(directory, 'kpi'), 'utf8')).toBe('new');
    expect(readdirSync(directory)).toEqual(['kpi']);
  });

  test('links, device nodes, O_TMPFILE refused with the right errno', async () => {
    const directory = fresh();
    writeFileSync(join(directory, 'f'), '');
    expect(() => {
      linkSync(join(directory, 'f'), join(directory, 'g'));
    }).toThrow('EPERM');
    expect(() => {
      symlinkSync('f', join(directory, 'g'));
    }).toThrow('EPERM');
    await expect(shell(directory, 'mkfifo pipe')).rejects.toThrow('not permitted');
    await expect(shell(directory, 'mknod device c 1 3')).rejects.toThrow('not permitted');
    expect(() => openSync(directory, 0o20200000 | 2)).toThrow(/EOPNOTSUPP|ENOTSUP/);
    expect(readdirSync(directory)).toEqual(['f']);
  });

  test('chmod, utimens and statfs', () => {
    const directory = fresh();
    const file = join(directory, 'f');
    writeFileSync(file, '');
    chmodSync(file, 0o640);
    expect(statSync(file).mode & 0o7777).toBe(0o640);
    const atSeconds = 1_700_000_000;
    utimesSync(file, atSeconds, atSeconds);
    expect(statSync(file).mtimeMs).toBe(atSeconds * 1_000);
    const { blocks, bfree } = statfsSync(directory);
    expect(blocks).toBeGreaterThan(0);
    expect(bfree).toBeGreaterThan(0);
    expect(bfree).toBeLessThanOrEqual(blocks);
  });
}

function describeReferences(): void {
  test('the file system is told when the kernel forgets: removed files leave nothing behind', async () => {
    const directory = fresh();
    const freeBefore = statfsSync(directory).ffree;
    for (let index = 0; index < 200; index += 1) writeFileSync(join(directory, `f${index}`), 'x');
    expect(readdirSync(directory, { withFileTypes: true })).toHaveLength(200);
    expect(statfsSync(directory).ffree).toBe(freeBefore - 200);
    for (let index = 0; index < 200; index += 1) unlinkSync(join(directory, `f${index}`));
    await eventually(() => statfsSync(directory).ffree === freeBefore, { timeoutMs: 5_000 });
  });
}

function describePrograms(): void {
  test('shell redirections, brace groups, tee, dd bs=1, sed -i, cp -p, mv over', async () => {
    const directory = fresh();
    const said = await shell(
      directory,
      `{ echo cpu,mem; echo 1,2; } > f; echo 3,4 >> f; cat f
       echo 5 | tee t; dd if=f of=d bs=1 2>/dev/null; cmp f d
       sed -i s/1/9/ f; head -2 f | tail -1
       cp -p f p; stat -c %s p; touch -d @1000 p; cp -p p q; stat -c %Y q; mv f q; ls`,
    );
    expect(said.split('\n')).toEqual([
      'cpu,mem',
      '1,2',
      '3,4',
      '5',
      '9,2',
      '16',
      '1000',
      'd',
      'p',
      'q',
      't',
      '',
    ]);
  });

  test('tar and cp -a carry files in and out, extended attributes or not', async () => {
    const directory = fresh();
    const said = await shell(
      directory,
      `mkdir in; echo 1 > in/a; echo 2 > in/b; tar --xattrs -cf in.tar in
       mkdir out; tar --xattrs -xf in.tar -C out; cp -a out copy; cat copy/in/*`,
    );
    expect(said).toBe('1\n2\n');
  });

  test('xattr calls give EOPNOTSUPP', async () => {
    const said = await python(
      fresh(),
      `import os,errno
open('f','w').close()
for call in (lambda: os.setxattr('f','user.a',b'1'), lambda: os.getxattr('f','user.a'), lambda: os.listxattr('f'), lambda: os.removexattr('f','user.a')):
    try: call(); print('ok')
    except OSError as e: print(errno.errorcode[e.errno])`,
    );
    expect(said.split('\n')).toEqual(['ENOTSUP', 'ENOTSUP', 'ENOTSUP', 'ENOTSUP']);
  });

  test('copy_file_range, sendfile and SEEK_DATA work', async () => {
    const said = await python(
      fresh(),
      `import os
open('a','wb').write(b'0123456789'*1000)
a=os.open('a',os.O_RDONLY); b=os.open('b',os.O_CREAT|os.O_RDWR); c=os.open('c',os.O_CREAT|os.O_RDWR)
n=0
while n<10000: n+=os.copy_file_range(a,b,10000-n,n,n)
n=0
while n<10000: n+=os.sendfile(c,a,n,10000-n)
print(os.lseek(a,0,os.SEEK_DATA))
os.close(b); os.close(c)
print(open('b').read()==open('a').read(), open('c').read()==open('a').read())`,
    );
    expect(said).toBe('0\nTrue True');
  });

  test('sendfile from a file gives its last save each time', async () => {
    const said = await python(
      fresh(),
      `import os
def sent():
    a=os.open('a',os.O_RDONLY); r,w=os.pipe(); os.sendfile(w,a,0,100); os.close(a); os.close(w)
    return os.read(r,100).decode()
for text in ('first','second save','3'):
    open('a','w').write(text); print(sent())`,
    );
    expect(said).toBe('first\nsecond save\n3');
  });

  test('locks stay in the kernel: flock and fcntl exclude each other processes', async () => {
    const said = await shell(
      fresh(),
      `echo > f; exec 3<f; flock -x 3; flock -n f true && echo both || echo excluded`,
    );
    expect(said).toBe('excluded\n');
  });

  test('several processes save at once, each file keeps its own last save', async () => {
    const directory = fresh();
    await shell(
      directory,
      'for p in 1 2 3 4; do ( for i in $(seq 100); do echo "$p,$i" > "f$p"; done ) & done; wait',
    );
    const saved = [1, 2, 3, 4].map((index) => readFileSync(join(directory, `f${index}`), 'utf8'));
    expect(saved).toEqual(['1,100\n', '2,100\n', '3,100\n', '4,100\n']);
  });

  test('permissions hold', async () => {
    const directory = fresh();
    writeFileSync(join(directory, 'secret'), 'x', { mode: 0o600 });
    chmodSync(directory, 0o755);
    const asNobody = (script: string) =>
      shell(directory, `setpriv --reuid ${nobody} --clear-groups sh -c '${script}'`);
    await expect(asNobody('cat secret')).rejects.toThrow('Permission denied');
    await expect(asNobody('echo 1 > mine')).rejects.toThrow('Permission denied');
  });
}

/** A test of a capability; where the backend lacks it, a skipped one that says so. */
function testOf(backend: BackendName) {
  return (capability: BackendCapability, title: string, body: () => void | Promise<void>): void => {
    const lacks = !capabilitiesOf[backend].includes(capability);
    const suffix = lacks ? ` [skipped: ${backend} lacks ${capability}]` : '';
    // oxlint-disable-next-line vitest/expect-expect -- `body` asserts
    test.skipIf(lacks)(`${title}${suffix}`, body);
  };
}

function describeCapabilities(backend: BackendName): void {
  const only = testOf(backend);
  only('caller-identity', 'files belong to the caller', async () => {
    const directory = fresh();
    chmodSync(directory, 0o1777);
    await shell(directory, `setpriv --reuid ${nobody} --clear-groups sh -c 'echo 1 > f; mkdir d'`);
    expect(statSync(join(directory, 'f')).uid).toBe(nobody);
    expect(statSync(join(directory, 'd')).uid).toBe(nobody);
  });

  only('exclusive-create', 'O_EXCL fails on a file that exists', () => {
    const file = join(fresh(), 'f');
    writeFileSync(file, 'x', { flag: 'wx' });
    expect(() => {
      writeFileSync(file, 'y', { flag: 'wx' });
    }).toThrow('EEXIST');
  });

  only('rename-flags', 'RENAME_NOREPLACE does not replace', async () => {
    const directory = fresh();
    const said = await python(
      directory,
      `import ctypes,os
for name in 'ab': open(name,'w').write(name)
libc=ctypes.CDLL(None,use_errno=True)
print(libc.renameat2(-100,b'a',-100,b'b',1), os.strerror(ctypes.get_errno()), open('b').read())`,
    );
    expect(said).toBe('-1 File exists b');
  });

  only(
    'allocate',
    'fallocate beyond what a file may hold gives EFBIG and changes nothing',
    async () => {
      const said = await python(
        fresh(),
        `import os,errno
f=os.open('f',os.O_CREAT|os.O_RDWR); os.write(f,b'1,2\\n')
try: os.posix_fallocate(f,0,8<<30)
except OSError as e: print(errno.errorcode[e.errno])
os.close(f); print(open('f').read()=='1,2\\n')`,
      );
      expect(said).toBe('EFBIG\nTrue');
    },
  );

  only('allocate', 'fallocate extends the file', async () => {
    expect(await shell(fresh(), 'fallocate -l 1000 f; stat -c %s f')).toBe('1000\n');
  });

  only('shared-mmap', 'what is written through a shared mapping is saved', async () => {
    const said = await python(
      fresh(),
      `import mmap,os
open('f','w').write('0123456789'*1000)
f=os.open('f',os.O_RDWR); m=mmap.mmap(f,10000); m[0:5]=b'hello'; m[9000:9005]=b'world'
m.flush(); print(open('f').read(5)); m.close(); os.close(f)
print(open('f').read()[9000:9005])
f=os.open('f',os.O_RDWR); m=mmap.mmap(f,10000); os.close(f); m[0:5]=b'later'; m.close()
print(open('f').read(5))`,
    );
    expect(said.split('\n').slice(1)).toEqual(['world', 'later']);
  });

  only('separate-times', 'access and modification time are set apart', () => {
    const file = join(fresh(), 'f');
    writeFileSync(file, '');
    utimesSync(file, 1_000.25, 2_000.5);
    expect(statSync(file)).toMatchObject({ atimeMs: 1_000_250, mtimeMs: 2_000_500 });
  });

  only('non-utf8-names-refused', 'a name that is not UTF-8 gives EILSEQ', async () => {
    const said = await python(
      fresh(),
      `import errno
try: open(b'caf\\xe9','w')
except OSError as e: print(errno.errorcode[e.errno])`,
    );
    expect(said).toBe('EILSEQ');
  });
}
