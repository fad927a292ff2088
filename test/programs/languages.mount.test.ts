import { writeFileSync } from 'node:fs';
import { appendFile, open, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { compiledEntry } from '../../common/runtime/package-root.ts';
import { describePrograms } from '../support/programs/kpi-mount.ts';
import { mustRun } from '../support/programs/run-program.ts';

const saved = { cpu: 1, mem: 2 };

describePrograms('Languages', (mount, programTest) => {
  const python: readonly [name: string, script: string][] = [
    [
      'text',
      `with open('TARGET', 'w') as f:\n  f.write('cpu,mem\\n')\n  f.flush()\n  f.write('1,2\\n')`,
    ],
    [
      'csv',
      `import csv\nwith open('TARGET', 'w', newline='') as f:\n  w = csv.DictWriter(f, ['cpu', 'mem'])\n  w.writeheader()\n  w.writerow({'cpu': 1, 'mem': 2})`,
    ],
    ['pathlib', `import pathlib\npathlib.Path('TARGET').write_text('cpu,mem\\n1,2\\n')`],
    [
      'tempfile',
      `import os, tempfile\nwith tempfile.NamedTemporaryFile('w', dir='.', delete=False) as f:\n  f.write('cpu,mem\\n1,2\\n')\nos.replace(f.name, 'TARGET')`,
    ],
    [
      'mmap',
      `import mmap\nwith open('TARGET', 'w+b') as f:\n  f.truncate(12)\n  m = mmap.mmap(f.fileno(), 12)\n  m[:] = b'cpu,mem\\n1,2\\n'\n  m.close()`,
    ],
    [
      'unbuffered',
      `with open('TARGET', 'wb', buffering=0) as f:\n  [f.write(bytes([b])) for b in b'cpu,mem\\n1,2\\n']`,
    ],
    ['exclusive', `with open('TARGET', 'x') as f:\n  f.write('cpu,mem\\n1,2\\n')`],
  ];
  for (const [name, script] of python) {
    programTest(
      `"every save of a file is one row": Python, ${name}`,
      ['python3'],
      async ({ sh }) => {
        const path = join(mount.scratchPath, `save-with-${name}.py`);
        writeFileSync(path, script.replaceAll('TARGET', `python-${name}`));
        await sh(`python3 ${path}`);
        await mount.expectRows(`python-${name}`, [saved]);
      },
    );
  }

  programTest(
    '"every completed line is a row at once": the logging module of Python',
    ['python3'],
    async ({ sh }) => {
      const path = join(mount.scratchPath, 'log.py');
      writeFileSync(
        path,
        `import logging\nlogging.basicConfig(filename='python-log', format='%(message)s', level='INFO')\nfor i in range(3): logging.info('%d,%d', i, i * i)\n`,
      );
      await sh(`python3 ${path}`);
      const rows = [0, 1, 2].map((value) => ({ column1: value, column2: value * value }));
      await mount.expectRows('python-log', rows);
    },
  );

  programTest('Java: Files, a writer, a random access file', ['javac'], async ({ sh }) => {
    writeFileSync(
      join(mount.scratchPath, 'Save.java'),
      `import java.io.*; import java.nio.file.*;
       public class Save {
         public static void main(String[] arguments) throws IOException {
           Files.writeString(Path.of("java-files"), "cpu,mem\\n1,2\\n");
           try (PrintWriter out = new PrintWriter(new FileWriter("java-writer"))) {
             out.println("cpu,mem"); out.flush(); out.println("1,2");
           }
           try (RandomAccessFile out = new RandomAccessFile("java-random", "rw")) {
             out.seek(8); out.writeBytes("1,2\\n"); out.seek(0); out.writeBytes("cpu,mem\\n");
           }
           Path part = Files.createTempFile(Path.of("."), "save", ".tmp");
           Files.writeString(part, "cpu,mem\\n1,2\\n");
           Files.move(part, Path.of("java-moved"), StandardCopyOption.ATOMIC_MOVE);
         }
       }`,
    );
    await sh('java -Xshare:auto -XX:TieredStopAtLevel=1 $SCRATCH/Save.java');
    for (const file of ['java-files', 'java-writer', 'java-random', 'java-moved']) {
      await mount.expectRows(file, [saved]);
    }
  });

  programTest('Node: writeFile, a file handle, appendFile, rename', [], async () => {
    await writeFile(mount.path('node-file'), 'cpu,mem\n1,2\n');
    await mount.expectRows('node-file', [saved]);
    const handle = await open(mount.path('node-handle'), 'w');
    await handle.write('cpu,mem\n');
    await handle.write('1,2\n');
    await handle.close();
    await mount.expectRows('node-handle', [saved]);
    await appendFile(mount.path('node-append'), '1\n2\n');
    await mount.expectRows('node-append', [{ column1: 1 }, { column1: 2 }]);
    const part = mount.path('node-atomic.tmp');
    await writeFile(part, 'cpu,mem\n1,2\n', { flag: 'wx' });
    await rename(part, mount.path('node-atomic'));
    await mount.expectRows('node-atomic', [saved]);
  });

  programTest('Node: a write stream is one save, an appending stream is lines', [], async () => {
    const entry = compiledEntry('test/support/stream-writer-fixture.ts');
    await mustRun(process.execPath, [entry, mount.path('node-stream'), 'w', 'cpu,mem', '1,2']);
    await mount.expectRows('node-stream', [saved]);
    await mustRun(process.execPath, [entry, mount.path('node-lines'), 'a', '1', '2']);
    await mount.expectRows('node-lines', [{ column1: 1 }, { column1: 2 }]);
  });

  programTest('perl and awk', ['perl', 'awk'], async ({ sh }) => {
    await sh(
      `perl -e 'open(F, ">", "perl") or die; print F "cpu,mem\\n1,2\\n"; close(F) or die'
       awk 'BEGIN { print "cpu,mem" > "awk"; print "1,2" > "awk" }'
       awk 'BEGIN { for (i = 1; i <= 3; i++) print i >> "awk-append" }'`,
    );
    await mount.expectRows('perl', [saved]);
    await mount.expectRows('awk', [saved]);
    await mount.expectRows('awk-append', [{ column1: 1 }, { column1: 2 }, { column1: 3 }]);
  });
});
