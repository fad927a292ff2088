import { mkdirSync, readdirSync, statSync, writeFileSync } from 'node:fs';
import { chown } from 'node:fs/promises';
import { createConnection } from 'node:net';
import { join } from 'node:path';

import { eventually } from '../support/eventually.ts';
import { describePrograms } from '../support/programs/kpi-mount.ts';
import { mustRun, startProgram } from '../support/programs/run-program.ts';
import { findProgram, type FoundProgram, type TestProgram } from '../support/test-packages.ts';

const startTimeoutMs = 20_000;
/** PostgreSQL refuses to run as root. */
const nobodyId = 65_534;

async function mustFind(program: TestProgram): Promise<FoundProgram> {
  const found = await findProgram(program);
  if (typeof found === 'string') throw new Error(found);
  return found;
}

/** The file of a package: in the private copy if there is one, else where Debian installs it. */
function packaged(program: FoundProgram, path: string): string {
  return join(program.root ?? '/', path);
}

function hasSocket(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isSocket() === true;
}

/** Hands values to collectd's unixsock plugin and waits for its answers. */
async function putValues(socket: string, values: readonly string[]): Promise<void> {
  const client = createConnection(socket);
  try {
    let answer = '';
    client.on('data', (chunk: Buffer) => {
      answer += chunk.toString();
    });
    client.write(values.map((value) => `PUTVAL ${value}\n`).join(''));
    await eventually(() => answer.split('Success').length > values.length, {
      timeoutMs: startTimeoutMs,
    });
  } finally {
    client.destroy();
  }
}

/** The name of the one file in a directory, once it is there: collectd names files after the day. */
async function onlyFileIn(directory: string): Promise<string> {
  return eventually(
    () => {
      const names = readdirSync(directory);
      return names.length === 1 ? names[0] : undefined;
    },
    { timeoutMs: startTimeoutMs },
  );
}

describePrograms('Servers', (mount, programTest) => {
  programTest(
    'PostgreSQL: COPY TO a file and a program, and \\copy of psql',
    ['postgres', 'setpriv'],
    async ({ environment }) => {
      const isRoot = process.getuid?.() === 0;
      const identity = isRoot ? { uid: nobodyId, gid: nobodyId } : {};
      const options = { ...identity, environment, workingDirectory: mount.scratchPath };
      const data = join(mount.scratchPath, 'postgres');
      mkdirSync(data, { mode: 0o700 });
      if (isRoot) await chown(data, nobodyId, nobodyId);
      await mustRun('initdb', ['-N', '-A', 'trust', '-U', 'isobar', '-D', data], options);
      await using _server = startProgram(
        'postgres',
        ['-D', data, '-k', data, '-c', 'listen_addresses=', '-c', 'fsync=off'],
        { ...options, endSignal: 'SIGINT' },
      );
      const query = async (sql: string): Promise<unknown> =>
        mustRun(
          'psql',
          ['-X', '-v', 'ON_ERROR_STOP=1', '-h', data, '-U', 'isobar', '-d', 'postgres', '-c', sql],
          options,
        );
      await eventually(() => query('SELECT 1').then(() => true), {
        timeoutMs: startTimeoutMs,
        pollMs: 100,
      });
      const users = 'SELECT 42 AS users, 7.5 AS load';
      await query(`COPY (${users}) TO '${mount.path('copy-file')}' WITH (FORMAT csv, HEADER)`);
      await mount.expectRows('copy-file', [{ users: 42, load: 7.5 }]);
      await query(`COPY (${users}) TO PROGRAM 'cat > ${mount.path('copy-program')}' CSV HEADER`);
      await mount.expectRows('copy-program', [{ users: 42, load: 7.5 }]);
      await query(`\\copy (${users}) TO '${mount.path('copy-client')}' WITH (FORMAT csv, HEADER)`);
      await mount.expectRows('copy-client', [{ users: 42, load: 7.5 }]);
    },
  );

  programTest(
    '"every completed line is a row at once": rsyslog omfile',
    ['rsyslogd', 'logger'],
    async ({ environment, sh }) => {
      const rsyslogd = await mustFind('rsyslogd');
      const socket = join(mount.scratchPath, 'log.socket');
      const config = join(mount.scratchPath, 'rsyslog.conf');
      writeFileSync(
        config,
        `global(workDirectory="${mount.scratchPath}")
         module(load="imuxsock" SysSock.Use="off")
         input(type="imuxsock" Socket="${socket}" CreatePath="on")
         template(name="kpi" type="string" string="%msg:2:$%\\n")
         action(type="omfile" file="${mount.path('rsyslog')}" template="kpi")
        `,
      );
      const modules = packaged(rsyslogd, 'usr/lib/x86_64-linux-gnu/rsyslog');
      const pidFile = join(mount.scratchPath, 'rsyslog.pid');
      await using server = startProgram(
        'rsyslogd',
        ['-n', '-f', config, '-i', pidFile, '-M', modules],
        { environment },
      );
      await eventually(() => hasSocket(socket), { timeoutMs: startTimeoutMs });
      await sh(`for i in 1 2 3; do logger -u ${socket} -t app $i,$((i * i)); done`);
      const rows = [1, 2, 3].map((value) => ({ column1: value, column2: value * value }));
      try {
        await mount.expectRows('rsyslog', rows);
      } catch (cause) {
        throw new Error(`rsyslogd: ${server.output()}`, { cause });
      }
    },
  );

  programTest(
    '"renaming onto a rotation name (.1, .old, a date) never is a save": logrotate',
    ['logrotate'],
    async ({ sh }) => {
      const config = join(mount.scratchPath, 'logrotate.conf');
      const owner = (await sh('echo "$(id -un) $(id -gn)"')).stdout.trim();
      const rotation = (file: string, directives: string): string =>
        `${mount.path(file)} {\n  su ${owner}\n  rotate 2\n  ${directives}\n}\n`;
      writeFileSync(
        config,
        rotation('rotate-create', `create 0644 ${owner}`) +
          rotation('rotate-truncate', 'copytruncate') +
          rotation('rotate-date', 'dateext\n  nocreate') +
          rotation('rotate-compress', 'create\n  compress'),
      );
      const files = ['rotate-create', 'rotate-truncate', 'rotate-date', 'rotate-compress'];
      await sh(
        `for f in ${files.join(' ')}; do echo 1 >> $f; done
         logrotate -f -s $SCRATCH/rotated ${config}
         for f in ${files.join(' ')}; do echo 2 >> $f; done`,
      );
      for (const file of files) {
        await mount.expectRows(file, [{ column1: 1 }, { column1: 2 }]);
      }
    },
  );

  programTest(
    'collectd csv plugin makes directories and appends through a second open',
    ['collectd'],
    async ({ environment }) => {
      const collectd = await mustFind('collectd');
      const socket = join(mount.scratchPath, 'collectd.socket');
      const config = join(mount.scratchPath, 'collectd.conf');
      writeFileSync(
        config,
        `Hostname "vm"
         BaseDir "${mount.scratchPath}"
         PIDFile "${join(mount.scratchPath, 'collectd.pid')}"
         PluginDir "${packaged(collectd, 'usr/lib/collectd')}"
         TypesDB "${packaged(collectd, 'usr/share/collectd/types.db')}"
         Interval 3600
         WriteThreads 1
         LoadPlugin csv
         LoadPlugin unixsock
         <Plugin csv>
           DataDir "${mount.path('collectd')}"
         </Plugin>
         <Plugin unixsock>
           SocketFile "${socket}"
         </Plugin>
        `,
      );
      await using server = startProgram('collectd', ['-f', '-C', config], {
        environment: { ...environment, TZ: 'UTC' },
      });
      await eventually(() => hasSocket(socket), { timeoutMs: startTimeoutMs });
      const epochSeconds = 1_700_000_000;
      await putValues(
        socket,
        [0, 1, 2].map((index) => `vm/app/gauge-users ${epochSeconds + index}:${40 + index}`),
      );
      const values = [0, 1, 2].map((index) => ({
        epoch: epochSeconds + index,
        value: 40 + index,
      }));
      try {
        const file = await onlyFileIn(mount.path('collectd/vm/app'));
        // The header is a file of its own, closed before the first value: a one-line save that is published.
        const header = { column1: 'epoch', column2: 'value' };
        await mount.expectRows(`collectd/vm/app/${file}`, [header, ...values]);
      } catch (cause) {
        throw new Error(`collectd: ${server.output()}`, { cause });
      }
    },
  );
});
