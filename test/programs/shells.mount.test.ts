import { expect } from 'vitest';

import { describePrograms } from '../support/programs/kpi-mount.ts';

/** Every shell forks, redirects and closes in its own way; each promise holds in all of them. */
const shells = [
  { name: 'bash', command: 'bash', programs: ['bash'] },
  { name: 'dash', command: 'dash', programs: ['dash'] },
  { name: 'busybox', command: 'busybox sh', programs: ['busybox'] },
] as const;

describePrograms('Shells', (mount, programTest) => {
  for (const { name, command, programs } of shells) {
    const inShell = (script: string): string => `${command} -c '${script}'`;

    programTest(`${name}: "every save of a file is one row" with >`, programs, async ({ sh }) => {
      const file = `${name}-users`;
      await sh(inShell(`echo 42 > ${file}; echo 43 > ${file}; echo 43 > ${file}`));
      await mount.expectRows(file, [{ column1: 42 }, { column1: 43 }, { column1: 43 }]);
    });

    programTest(
      `${name}: "on an O_APPEND handle every completed line is a row at once" with >>`,
      programs,
      async ({ sh }) => {
        const file = `${name}-append`;
        await sh(inShell(`for i in 1 2 3; do echo $i,x >> ${file}; done`));
        const rows = [1, 2, 3].map((value) => ({ column1: value, column2: 'x' }));
        await mount.expectRows(file, rows);
        expect((await sh(`cat ${file}`)).stdout).toBe('1,x\n2,x\n3,x\n');
      },
    );

    programTest(
      `${name}: "{ echo cpu,mem; echo 1,2; } > f" is one row`,
      programs,
      async ({ sh }) => {
        const file = `${name}-group`;
        await sh(inShell(`{ echo cpu,mem; echo 1,2; } > ${file}`));
        await mount.expectRows(file, [{ cpu: 1, mem: 2 }]);
      },
    );

    programTest(
      `${name}: "{ ...; } > f" of programs, each of which FLUSHes at its end, is one row`,
      programs,
      async ({ sh }) => {
        const file = `${name}-group-of-programs`;
        await sh(inShell(`{ /bin/echo cpu,mem; /bin/echo 1,2; } > ${file}`));
        await mount.expectRows(file, [{ cpu: 1, mem: 2 }]);
      },
    );

    programTest(
      `${name}: "exec 3>f" held over several programs is one row when it is closed`,
      programs,
      async ({ sh }) => {
        const file = `${name}-held`;
        await sh(inShell(`exec 3>${file}; /bin/echo cpu,mem >&3; /bin/echo 3,4 >&3; exec 3>&-`));
        await mount.expectRows(file, [{ cpu: 3, mem: 4 }]);
      },
    );

    programTest(
      `${name}: "a truncation, an empty file or only NUL bytes is no save": ": > f"`,
      programs,
      async ({ sh }) => {
        const file = `${name}-truncated`;
        await sh(inShell(`echo 1 > ${file}; : > ${file}; echo 2 > ${file}`));
        await mount.expectRows(file, [{ column1: 1 }, { column1: 2 }]);
      },
    );

    programTest(
      `${name}: a subshell and a background job that inherit the descriptor add to the same save`,
      programs,
      async ({ sh }) => {
        const file = `${name}-inherited`;
        await sh(inShell(`{ (echo cpu,mem); echo 5,6 & wait; } > ${file}`));
        await mount.expectRows(file, [{ cpu: 5, mem: 6 }]);
      },
    );
  }

  programTest('bash: a here-document and printf without a line end', ['bash'], async ({ sh }) => {
    await sh('cat > here <<END\ncpu,mem\n1,2\nEND\nprintf 7 > unended');
    await mount.expectRows('here', [{ cpu: 1, mem: 2 }]);
    await mount.expectRows('unended', [{ column1: 7 }]);
  });

  programTest('bash: noclobber makes the file with O_EXCL', ['bash'], async ({ sh }) => {
    await sh('set -o noclobber; echo 1 > unclobbered');
    await mount.expectRows('unclobbered', [{ column1: 1 }]);
  });

  programTest(
    'bash: "a one-line row once published stays" when a logger adds values to labels',
    ['bash'],
    async ({ sh }) => {
      await sh('echo cpu,mem > later; echo 1,2 >> later');
      await mount.expectRows('later', [
        { column1: 'cpu', column2: 'mem' },
        { cpu: 1, mem: 2 },
      ]);
    },
  );

  programTest(
    '"four shells on one file": lines of several loggers are rows, whole and all of them',
    ['bash'],
    async ({ sh }) => {
      await sh(
        'for w in 1 2 3 4; do (for i in $(seq 25); do echo $w,$i >> shared; done) & done; wait',
      );
      const rows = mount.agent.rows('shared');
      expect(rows).toHaveLength(100);
      for (const writer of [1, 2, 3, 4]) {
        const own = rows.filter((row) => row['column1'] === writer).map((row) => row['column2']);
        expect(own).toEqual(Array.from({ length: 25 }, (_, index) => index + 1));
      }
      await mount.expectRows('shared', rows);
    },
  );
});
