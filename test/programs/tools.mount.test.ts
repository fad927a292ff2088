import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';

import { describePrograms } from '../support/programs/kpi-mount.ts';

const saved = { cpu: 1, mem: 2 };

/** Serves the two lines of a KPI file at every path. */
async function kpiServer(): Promise<AsyncDisposable & { readonly url: string }> {
  const server = createServer((_request, response) => {
    response.end('cpu,mem\n1,2\n');
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/kpi`,
    [Symbol.asyncDispose]: async () => {
      server.close();
      server.closeAllConnections();
      await once(server, 'close');
    },
  };
}

describePrograms('Tools', (mount, programTest) => {
  programTest('"every save of a file is one row": curl -o', ['curl'], async ({ sh }) => {
    await using server = await kpiServer();
    await sh(`curl -sSf --noproxy '*' -o curl ${server.url}`);
    await mount.expectRows('curl', [saved]);
  });

  programTest('wget -O', ['wget'], async ({ sh }) => {
    await using server = await kpiServer();
    await sh(`wget --no-config --no-proxy -q -O wget ${server.url}`);
    await mount.expectRows('wget', [saved]);
  });

  programTest('sqlite3 .output with headers', ['sqlite3'], async ({ sh }) => {
    await sh(
      `sqlite3 -batch :memory: '.mode csv' '.headers on' '.output sqlite3' 'SELECT 1 AS cpu, 2 AS mem;'`,
    );
    await mount.expectRows('sqlite3', [saved]);
  });

  programTest('jq writes CSV', ['jq'], async ({ sh }) => {
    await sh(`echo '{"cpu":1,"mem":2}' | jq -r '(keys_unsorted, map(.)) | @csv' > jq`);
    await mount.expectRows('jq', [saved]);
  });

  programTest('git checkout into the mount', ['git'], async ({ sh }) => {
    await sh(
      `git init -q $SCRATCH/repository; printf 'cpu,mem\\n1,2\\n' > $SCRATCH/repository/git
       cd $SCRATCH/repository; git add git
       git -c user.name=test -c user.email=test@example.org -c commit.gpgsign=false commit -qm save
       git --work-tree=${mount.path()} checkout -q -f HEAD -- git
       git show HEAD:git > ${mount.path('git-show')}`,
    );
    await mount.expectRows('git', [saved]);
    await mount.expectRows('git-show', [saved]);
  });

  programTest('split, xargs and find -exec', ['bash'], async ({ sh }) => {
    await sh(
      `printf '3\\n1\\n2\\n' > $SCRATCH/lines
       split -l 1 -a 1 $SCRATCH/lines split-
       echo 'cpu,mem 1,2' | xargs -n 1 echo > xargs
       find split-a -exec cp {} found \\;`,
    );
    await mount.expectRows('split-a', [{ column1: 3 }]);
    await mount.expectRows('split-b', [{ column1: 1 }]);
    await mount.expectRows('split-c', [{ column1: 2 }]);
    await mount.expectRows('xargs', [saved]);
    await mount.expectRows('found', [{ column1: 3 }]);
  });
});
