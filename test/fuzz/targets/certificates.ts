import assert from 'node:assert';
import { X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';

import {
  FileTlsIdentity,
  fileTlsIdentityDefaults,
} from '../../../common/identity/file-tls-identity.ts';
import { IdentityError } from '../../../common/identity/identity-error.ts';
import {
  acceptRevocationLists,
  createInvitation,
  invitationSchema,
  trustInvitation,
} from '../../../common/identity/invitation.ts';
import { readRevocationList } from '../../../common/identity/revocation-list.ts';
import { siteFiles } from '../../../common/identity/site-files.ts';
import { SystemClock } from '../../../common/runtime/clock.ts';
import { silentLog } from '../../../common/runtime/log.ts';
import { makeNeighbours, makeSite } from '../../support/sites.ts';
import { temporaryDirectory } from '../../support/temporary-directory.ts';
import type { FuzzTarget } from '../fuzz-target.ts';

const clock = new SystemClock();

/** Certificates (DER), authorities and revocation lists (PEM), invitations (JSON): what neighbours hand over. */
export const certificates: FuzzTarget = {
  name: 'certificates',
  dictionary: [
    '-----BEGIN X509 CRL-----\n',
    '-----END X509 CRL-----\n',
    '-----BEGIN CERTIFICATE-----\n',
  ],
  inputBytesMax: 200_000,
  start: async () => {
    const directory = temporaryDirectory();
    const a = await makeSite(directory.path, 'site-a');
    const b = await makeSite(directory.path, 'site-b');
    const c = await makeSite(directory.path, 'site-c');
    await makeNeighbours('a-b', a, b);
    const identity = new FileTlsIdentity(
      { clock, log: silentLog },
      { ...fileTlsIdentityDefaults, directory: a },
    );
    await identity.start();
    const files = siteFiles(b);
    const leafDer = new X509Certificate(readFileSync(files.certificate('leaf'))).raw;
    const authority = readFileSync(files.certificate('authority'), 'utf8');
    const lists = readFileSync(files.revocationList, 'utf8');
    const invitation = await createInvitation(c, 'a-c', 'consumer');
    return {
      samples: [
        leafDer,
        new X509Certificate(readFileSync(files.certificate('signing'))).raw,
        new X509Certificate(authority).raw,
        derOf(lists),
        Buffer.from(lists),
        Buffer.from(authority),
        Buffer.from(JSON.stringify(invitation)),
      ],
      run: async (input) => {
        for (const use of ['tls', 'live', 'signing'] as const) {
          const relation = identity.relationOf(input, use);
          assert(relation === undefined || relation === 'a-b');
        }
        const text = Buffer.from(input).toString();
        readRevocationList(text, authority);
        readRevocationList(pemOf('X509 CRL', input), authority);
        await refuses(() => acceptRevocationLists(clock, a, 'a-b', text));
        await trust(a, text);
        const authorities = [pemOf('CERTIFICATE', input)];
        await trust(a, JSON.stringify({ ...invitation, authorities }));
      },
      checkStillWorks: async () => {
        assert.equal(identity.relationOf(leafDer), 'a-b');
        assert(readRevocationList(lists, authority) !== undefined);
        await acceptRevocationLists(clock, a, 'a-b', lists);
      },
      stop: async () => {
        await identity.stop();
        directory[Symbol.dispose]();
      },
    };
  },
};

/** Nobody compared its fingerprint, so it is never trusted. */
async function trust(directory: string, text: string): Promise<void> {
  let document: unknown;
  try {
    document = JSON.parse(text);
  } catch {
    return;
  }
  const parsed = invitationSchema.safeParse(document);
  if (!parsed.success) return;
  await refuses(() => trustInvitation(clock, directory, parsed.data, []));
}

async function refuses(act: () => Promise<unknown>): Promise<void> {
  try {
    await act();
  } catch (error) {
    if (!(error instanceof IdentityError)) throw error;
  }
}

function pemOf(label: string, der: Uint8Array): string {
  const lines =
    Buffer.from(der)
      .toString('base64')
      .match(/.{1,64}/g) ?? [];
  return [`-----BEGIN ${label}-----`, ...lines, `-----END ${label}-----`, ''].join('\n');
}

function derOf(pem: string): Buffer {
  return Buffer.from(pem.replaceAll(/-----.*-----/g, ''), 'base64');
}
