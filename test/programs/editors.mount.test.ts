import { expect } from 'vitest';

import { describePrograms } from '../support/programs/kpi-mount.ts';
import { typeInto } from '../support/programs/pseudo-terminal.ts';

const saves = [{ column1: 41 }, { column1: 42 }];

describePrograms('Editors', (mount, programTest) => {
  programTest(
    '"editors\' temporary names never become tables": sed -i renames over the file',
    ['bash'],
    async ({ sh }) => {
      await sh('echo 41 > sed; sed -i s/41/42/ sed');
      await mount.expectRows('sed', saves);
    },
  );

  programTest('sed -i.bak keeps the old file under a backup name', ['bash'], async ({ sh }) => {
    await sh('echo 41 > sed-backup; sed -i~ s/41/42/ sed-backup');
    await mount.expectRows('sed-backup', saves);
    expect((await sh('cat sed-backup')).stdout).toBe('42\n');
  });

  programTest('perl -i', ['perl'], async ({ sh }) => {
    await sh('echo 41 > perl-in-place; perl -pi -e s/41/42/ perl-in-place');
    await mount.expectRows('perl-in-place', saves);
  });

  programTest('vim in ex mode', ['vim'], async ({ sh }) => {
    await sh(`echo 41 > vim-ex; vim -es -u NONE -c '%s/41/42/' -c wq vim-ex`);
    await mount.expectRows('vim-ex', saves);
  });

  programTest(
    'vim with a backup, a swap file and backupcopy=no, which makes a new file',
    ['vim'],
    async ({ sh }) => {
      await sh(
        `echo 41 > vim-new; vim -es -u NONE -c 'set backup swapfile backupcopy=no' -c '%s/41/42/' -c wq vim-new`,
      );
      await mount.expectRows('vim-new', saves);
    },
  );

  programTest('vim on a terminal', ['vim', 'script'], async ({ sh, environment }) => {
    await sh('echo 41 > vim-terminal');
    await typeInto(
      'vim -u NONE -N vim-terminal',
      [
        { after: /41/, keys: 'cc42\u001B' },
        { after: /INSERT/, keys: ':wq\r' },
      ],
      { workingDirectory: mount.path(), environment },
    );
    await mount.expectRows('vim-terminal', saves);
  });

  programTest('nano on a terminal', ['nano', 'script'], async ({ sh, environment }) => {
    await sh('echo 41 > nano-terminal');
    await typeInto(
      'nano --ignorercfiles nano-terminal',
      [
        // Delete "41", type "42", write (^O, Enter), leave (^X).
        { after: /41/, keys: '\u001B[3~\u001B[3~42\u000F' },
        { after: /Write/, keys: '\r' },
        { after: /Wrote|lines?/, keys: '\u0018' },
      ],
      { workingDirectory: mount.path(), environment },
    );
    await mount.expectRows('nano-terminal', saves);
  });

  programTest('ed', ['ed'], async ({ sh }) => {
    await sh(String.raw`echo 41 > ed; printf '1c\n42\n.\nw\nq\n' | ed -s ed`);
    await mount.expectRows('ed', saves);
  });

  programTest('sponge writes when its input has ended', ['sponge'], async ({ sh }) => {
    await sh('echo 41 > sponge; sed s/41/42/ sponge | sponge sponge');
    await mount.expectRows('sponge', saves);
  });

  programTest(
    '"while a file lives, reading it gives exactly the bytes of its last save"',
    ['bash'],
    async ({ sh }) => {
      await sh(String.raw`printf 'cpu ,"mem"\r\n1,+5\r\n' | tee exact > $SCRATCH/exact`);
      await sh('cmp exact $SCRATCH/exact');
      await mount.expectRows('exact', [{ cpu: 1, mem: 5 }]);
    },
  );

  programTest(
    '"surrounding blanks, +5, .5, 5. are numbers; integers within 64 bits are exact; the rest are TEXT; empty is NULL"',
    ['bash'],
    async ({ sh }) => {
      await sh(
        `printf '+5,.5,5., 7 ,007,NaN,,"8",9223372036854775807,9223372036854775808' > values`,
      );
      await mount.expectRows('values', [
        {
          column1: 5,
          column2: 0.5,
          column3: 5,
          column4: 7,
          column5: '007',
          column6: 'NaN',
          column7: null,
          column8: 8,
          column9: 9_223_372_036_854_775_807n,
          column10: '9223372036854775808',
        },
      ]);
    },
  );
});
