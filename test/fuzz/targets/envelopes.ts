import assert from 'node:assert';

import {
  envelopeBytesMax,
  openEnvelope,
  sealEnvelope,
} from '../../../common/sealing/cms-envelope.ts';
import { parseRecipientKey, parseRecipients } from '../../../common/sealing/recipients.ts';
import { SealingError } from '../../../common/sealing/sealing-error.ts';
import { opensslEncrypt, opensslIdentity, type OpensslIdentity } from '../../support/openssl.ts';
import { temporaryDirectory } from '../../support/temporary-directory.ts';
import type { FuzzTarget } from '../fuzz-target.ts';

const content = Buffer.from('users,load\n42,0.5\n');

/** CMS messages from applications, made by us and by openssl; and the PEM text that names recipients. */
export const envelopes: FuzzTarget = {
  name: 'envelopes',
  dictionary: ['-----BEGIN CERTIFICATE-----', '-----END CERTIFICATE-----', '-----BEGIN A-----'],
  inputBytesMax: 262_144,
  start: () => {
    using directory = temporaryDirectory();
    const identities = (['rsa-2048', 'P-256'] as const).map((kind) =>
      opensslIdentity(directory.path, kind, kind),
    );
    const keys = identities.map(({ keyPem, certificatePem }) =>
      parseRecipientKey(keyPem, [certificatePem]),
    );
    const pem = identities.map(({ certificatePem }) => certificatePem).join('\n');
    const sealed = sealEnvelope(content, parseRecipients(pem));
    const samples = [sealed, ...sealedByOpenssl(identities)];
    return Promise.resolve({
      samples: [...samples, Buffer.from(pem)],
      run: (input) => {
        const opened = openEnvelope(input, keys);
        if (opened.ok) assert(opened.content.length <= envelopeBytesMax);
        readRecipients(Buffer.from(input).toString());
      },
      checkStillWorks: () => {
        for (const sample of samples) {
          assert.deepEqual(openEnvelope(sample, keys), { ok: true, content });
        }
        return Promise.resolve();
      },
      stop: () => Promise.resolve(),
    });
  },
};

function sealedByOpenssl(identities: readonly OpensslIdentity[]): readonly Uint8Array[] {
  return [['-aes-256-gcm'], ['-aes-256-cbc'], ['-aes-256-gcm', '-stream']].map((options) =>
    opensslEncrypt(content, identities, options),
  );
}

function readRecipients(pem: string): void {
  try {
    parseRecipients(pem);
  } catch (error) {
    if (!(error instanceof SealingError)) throw error;
  }
}
