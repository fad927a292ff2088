import { readFileSync } from 'node:fs';
import { join } from 'node:path';

import { expect } from 'vitest';

import { describePrograms } from '../support/programs/kpi-mount.ts';

const labelled = String.raw`printf "cpu,mem\n1,2\n"`;
const saved = { cpu: 1, mem: 2 };

describePrograms('Copiers', (mount, programTest) => {
  programTest('"every save of a file is one row": tee', ['bash'], async ({ sh }) => {
    await sh(`${labelled} | tee tee-one tee-two > $SCRATCH/copy`);
    await mount.expectRows('tee-one', [saved]);
    await mount.expectRows('tee-two', [saved]);
  });

  programTest('"every completed line is a row at once": tee -a', ['bash'], async ({ sh }) => {
    await sh('echo 1 | tee -a tee-append; echo 2 | tee -a tee-append');
    await mount.expectRows('tee-append', [{ column1: 1 }, { column1: 2 }]);
  });

  programTest('cp and cp -p into the mount, and within it', ['bash'], async ({ sh }) => {
    await sh(
      `${labelled} > $SCRATCH/cp; touch -d 2020-01-02T03:04:05Z $SCRATCH/cp
       cp $SCRATCH/cp cp-plain; cp -p $SCRATCH/cp cp-preserved; cp cp-plain cp-within`,
    );
    for (const file of ['cp-plain', 'cp-preserved', 'cp-within']) {
      await mount.expectRows(file, [saved]);
    }
    const modified = await sh('date -u -r cp-preserved +%FT%T');
    expect(modified.stdout.trim()).toBe('2020-01-02T03:04:05');
  });

  programTest('install sets mode and time after its save', ['bash'], async ({ sh }) => {
    await sh(`${labelled} > $SCRATCH/install; install -p -m 0640 $SCRATCH/install installed`);
    await mount.expectRows('installed', [saved]);
    expect((await sh('stat -c %a installed')).stdout.trim()).toBe('640');
  });

  programTest('mv into the mount from another file system', ['bash'], async ({ sh }) => {
    await sh(`${labelled} > $SCRATCH/moved-in; mv $SCRATCH/moved-in .`);
    await mount.expectRows('moved-in', [saved]);
  });

  programTest(
    '"renaming onto a KPI name is a save under that name": mv over a file',
    ['bash'],
    async ({ sh }) => {
      await sh('echo 1 > target; echo 2 > source; mv source target');
      await mount.expectRows('source', [{ column1: 2 }]);
      await mount.expectRows('target', [{ column1: 1 }, { column1: 2 }]);
      expect((await sh('cat target')).stdout).toBe('2\n');
    },
  );

  programTest('"onto a rotation name never is": mv f f.1', ['bash'], async ({ sh }) => {
    await sh('echo 1 > rotated; mv rotated rotated.1; echo 2 > rotated; mv rotated rotated.old');
    await mount.expectRows('rotated', [{ column1: 1 }, { column1: 2 }]);
  });

  programTest(
    '"copiers\' temporary names never become tables": rsync -a',
    ['rsync'],
    async ({ sh }) => {
      await sh(
        `mkdir -p $SCRATCH/rsync/deep; ${labelled} > $SCRATCH/rsync/one; echo 7 > $SCRATCH/rsync/deep/two
         rsync -a $SCRATCH/rsync .; echo 81 > $SCRATCH/rsync/deep/two; rsync -a $SCRATCH/rsync .`,
      );
      await mount.expectRows('rsync/one', [saved]);
      await mount.expectRows('rsync/deep/two', [{ column1: 7 }, { column1: 81 }]);
    },
  );

  programTest('rsync --inplace writes over the file itself', ['rsync'], async ({ sh }) => {
    await sh(
      `echo 100 > $SCRATCH/inplace; rsync --inplace $SCRATCH/inplace .
       echo 20 > $SCRATCH/inplace; rsync --inplace $SCRATCH/inplace .`,
    );
    await mount.expectRows('inplace', [{ column1: 100 }, { column1: 20 }]);
    expect((await sh('cat inplace')).stdout).toBe('20\n');
  });

  programTest('"sub-directories work": tar x', ['tar'], async ({ sh }) => {
    await sh(
      `mkdir -p $SCRATCH/tar/inner; ${labelled} > $SCRATCH/tar/inner/one; echo 5 > $SCRATCH/tar/two
       tar -C $SCRATCH -cf - tar | tar xf -`,
    );
    await mount.expectRows('tar/inner/one', [saved]);
    await mount.expectRows('tar/two', [{ column1: 5 }]);
  });

  programTest('unzip and cpio', ['unzip', 'zip', 'cpio'], async ({ sh }) => {
    await sh(
      `mkdir -p $SCRATCH/zip; cd $SCRATCH/zip; ${labelled} > unzipped; echo 6 > from-cpio
       zip -q archive.zip unzipped; echo from-cpio | cpio -o --quiet > archive.cpio
       cd -; unzip -q $SCRATCH/zip/archive.zip; cpio -i --quiet < $SCRATCH/zip/archive.cpio`,
    );
    await mount.expectRows('unzipped', [saved]);
    await mount.expectRows('from-cpio', [{ column1: 6 }]);
  });

  programTest('dd bs=1 is one save of many writes', ['bash'], async ({ sh }) => {
    await sh(`${labelled} | dd bs=1 of=dd-bytes status=none`);
    await mount.expectRows('dd-bytes', [saved]);
  });

  programTest('dd conv=notrunc seek writes into the last save', ['bash'], async ({ sh }) => {
    await sh('echo 123 > dd-seek; printf 9 | dd of=dd-seek bs=1 seek=1 conv=notrunc status=none');
    await mount.expectRows('dd-seek', [{ column1: 123 }, { column1: 193 }]);
  });

  programTest('dd oflag=direct, oflag=sync and conv=fsync', ['bash'], async ({ sh }) => {
    await sh(
      `${labelled} > $SCRATCH/dd
       dd if=$SCRATCH/dd of=dd-direct oflag=direct status=none
       dd if=$SCRATCH/dd of=dd-sync oflag=sync status=none
       dd if=$SCRATCH/dd of=dd-fsync conv=fsync status=none`,
    );
    for (const file of ['dd-direct', 'dd-sync', 'dd-fsync']) {
      await mount.expectRows(file, [saved]);
    }
  });

  programTest('"a truncation is no save": truncate', ['bash'], async ({ sh }) => {
    await sh('echo 123 > cut; truncate -s 0 cut; echo 4 > cut; truncate -s 0 cut');
    await mount.expectRows('cut', [{ column1: 123 }, { column1: 4 }]);
  });

  programTest(
    '"for a plain save that extends the previous content, only new lines are rows"',
    ['bash'],
    async ({ sh }) => {
      await sh(
        `${labelled} > $SCRATCH/grows; cp $SCRATCH/grows grows
         printf "3,4\n5,6\n" >> $SCRATCH/grows; cp $SCRATCH/grows grows`,
      );
      await mount.expectRows('grows', [saved, { cpu: 3, mem: 4 }, { cpu: 5, mem: 6 }]);
    },
  );

  programTest('"`encrypted/` files are opaque bytes, any bytes": cp', ['bash'], async ({ sh }) => {
    await sh('head -c 5000 /dev/urandom > $SCRATCH/secret; cp $SCRATCH/secret ../encrypted/secret');
    const rows = mount.agent.encryptedRows('secret');
    const contents = rows.map((row) => Object.values(row)).flat();
    expect(contents).toEqual([readFileSync(join(mount.scratchPath, 'secret'))]);
    expect((await sh('cmp $SCRATCH/secret ../encrypted/secret')).exitCode).toBe(0);
  });

  programTest(
    '"renaming across the two directories gives EXDEV", so mv copies',
    ['bash'],
    async ({ sh }) => {
      await sh('echo 9 > crossing; mv crossing ../encrypted/crossed');
      await mount.expectRows('crossing', [{ column1: 9 }]);
      const contents = mount.agent
        .encryptedRows('crossed')
        .map((row) => Object.values(row))
        .flat();
      expect(contents).toEqual([Buffer.from('9\n')]);
    },
  );

  programTest(
    '"not CSV: EINVAL at close", and "after a failed close it gives the last good save": cp',
    ['bash'],
    async ({ sh, trySh }) => {
      await sh('echo 1 > good');
      const result = await trySh(`printf '"open' > $SCRATCH/bad; cp $SCRATCH/bad good`);
      expect(result.exitCode).not.toBe(0);
      expect(result.stderr).toContain('Invalid argument');
      expect((await sh('cat good')).stdout).toBe('1\n');
      await mount.expectRows('good', [{ column1: 1 }]);
    },
  );
});
