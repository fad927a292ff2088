import { createPublicKey } from 'node:crypto';

import * as fc from 'fast-check';
import { afterAll, describe, expect, test } from 'vitest';

import {
  envelopeBytesMax,
  looksLikeEnvelope,
  openEnvelope,
  sealEnvelope,
} from '../../../common/sealing/cms-envelope.ts';
import { recipientsMax } from '../../../common/sealing/recipient-pem.ts';
import {
  parseRecipientKey,
  parseRecipients,
  type RecipientKey,
} from '../../../common/sealing/recipients.ts';
import {
  openssl,
  opensslDecrypt,
  opensslEncrypt,
  opensslIdentity,
  type OpensslIdentity,
  type OpensslKeyKind,
} from '../../support/openssl.ts';
import { temporaryDirectory } from '../../support/temporary-directory.ts';

const directory = temporaryDirectory();
afterAll(() => {
  directory[Symbol.dispose]();
});

const kinds: readonly OpensslKeyKind[] = ['rsa-2048', 'P-256', 'P-384', 'P-521'];
const identities = new Map(
  kinds.map((kind) => [kind, opensslIdentity(directory.path, kind, kind)]),
);
const content = Buffer.from('users,load\n42,0.5\n');

function identity(kind: OpensslKeyKind): OpensslIdentity {
  const found = identities.get(kind);
  if (found === undefined) throw new Error(kind);
  return found;
}

function keyOf({ keyPem, certificatePem }: OpensslIdentity): RecipientKey {
  return parseRecipientKey(keyPem, [certificatePem]);
}

function recipientsOf(...of: readonly OpensslIdentity[]) {
  return parseRecipients(of.map(({ certificatePem }) => certificatePem).join('\n'));
}

describe('CMS envelopes and the real openssl', () => {
  test.each(kinds)(
    'what is sealed for a certificate with %s, openssl cms -decrypt opens',
    (kind) => {
      const sealed = sealEnvelope(content, recipientsOf(identity(kind)));
      expect(opensslDecrypt(sealed, identity(kind), directory.path)).toEqual(content);
      expect(looksLikeEnvelope(sealed)).toBe(true);
    },
  );

  test.each([
    { title: 'AES-256-GCM', options: ['-aes-256-gcm'] },
    { title: 'AES-128-GCM', options: ['-aes-128-gcm'] },
    { title: 'AES-256-CBC', options: ['-aes-256-cbc'] },
    { title: 'BER of indefinite length', options: ['-aes-256-gcm', '-stream'] },
    { title: 'a key identifier for a name', options: ['-aes-256-gcm', '-keyid'] },
  ])('what openssl cms -encrypt makes, opens here: $title', ({ options }) => {
    for (const each of identities.values()) {
      const envelope = opensslEncrypt(content, [each], options);
      expect(looksLikeEnvelope(envelope) || options.includes('-stream')).toBe(true);
      expect(openEnvelope(envelope, [keyOf(each)])).toEqual({ ok: true, content });
    }
  });

  test('opens RSA keys by OAEP with any digest, and EC keys by any key derivation and wrap', () => {
    for (const digest of ['sha1', 'sha256', 'sha384', 'sha512']) {
      const oaep = ['-keyopt', 'rsa_padding_mode:oaep', '-keyopt', `rsa_oaep_md:${digest}`];
      const rsa = opensslEncrypt(content, [identity('rsa-2048')], ['-aes-256-gcm'], oaep);
      expect(openEnvelope(rsa, [keyOf(identity('rsa-2048'))])).toEqual({ ok: true, content });
      const derivation = ['-keyopt', `ecdh_kdf_md:${digest}`];
      const ec = opensslEncrypt(
        content,
        [identity('P-256')],
        ['-aes-256-gcm', '-aes128-wrap'],
        derivation,
      );
      expect(openEnvelope(ec, [keyOf(identity('P-256'))])).toEqual({ ok: true, content });
    }
  });

  test('one envelope for several recipients opens for each, and for no one else', () => {
    const all = Array.from(identities.values());
    const sealed = sealEnvelope(content, recipientsOf(...all));
    const fromOpenssl = opensslEncrypt(content, all);
    for (const each of all) {
      expect(opensslDecrypt(sealed, each, directory.path)).toEqual(content);
      expect(openEnvelope(sealed, [keyOf(each)])).toEqual({ ok: true, content });
      expect(openEnvelope(fromOpenssl, [keyOf(each)])).toEqual({ ok: true, content });
    }
    for (const kind of ['rsa-2048', 'P-256'] as const) {
      const stranger = opensslIdentity(directory.path, `stranger-${kind}`, kind);
      expect(openEnvelope(sealed, [keyOf(stranger)]).ok).toBe(false);
      expect(openEnvelope(fromOpenssl, [keyOf(stranger)]).ok).toBe(false);
      expect(() => opensslDecrypt(sealed, stranger, directory.path)).toThrow('cms');
    }
  });

  test('a public key alone is a recipient, and its private key alone opens', () => {
    for (const { keyPem } of identities.values()) {
      const pem = createPublicKey(keyPem).export({ type: 'spki', format: 'pem' }).toString();
      const sealed = sealEnvelope(content, parseRecipients(pem));
      expect(openEnvelope(sealed, [parseRecipientKey(keyPem, [])])).toEqual({ ok: true, content });
    }
  });

  test('a private key without its certificate opens what names the certificate', () => {
    const { keyPem } = identity('P-256');
    const envelope = opensslEncrypt(content, [identity('P-256')]);
    expect(openEnvelope(envelope, [parseRecipientKey(keyPem, [])])).toEqual({ ok: true, content });
  });

  test('empty content and content of a mebibyte', () => {
    for (const each of [new Uint8Array(), Buffer.alloc(1_024 * 1_024, 7)]) {
      const sealed = sealEnvelope(each, recipientsOf(identity('P-256')));
      expect(openEnvelope(sealed, [keyOf(identity('P-256'))])).toMatchObject({ ok: true });
      expect(opensslDecrypt(sealed, identity('P-256'), directory.path).length).toBe(each.length);
    }
  });
});

describe('CMS envelopes that are wrong', () => {
  const key = keyOf(identity('P-256'));
  const sealed = sealEnvelope(content, recipientsOf(identity('P-256')));
  const rsaSealed = opensslEncrypt(content, [identity('rsa-2048')]);
  const keys = [key, keyOf(identity('rsa-2048'))];

  test('altered anywhere, an envelope gives an error or its content, never other content', () => {
    fc.assert(
      fc.property(
        fc.constantFrom(sealed, rsaSealed),
        fc.nat(),
        fc.integer({ min: 1, max: 255 }),
        (envelope, at, change) => {
          const altered = Uint8Array.from(envelope);
          const position = at % altered.length;
          altered[position] = (altered[position] ?? 0) ^ change;
          const opened = openEnvelope(altered, keys);
          const given = opened.ok ? Buffer.from(opened.content) : content;
          expect(given).toEqual(content);
        },
      ),
      { numRuns: 500 },
    );
  });

  test('altered content or tag is not authentic', () => {
    for (const fromEnd of [1, 16, 20]) {
      const altered = Uint8Array.from(sealed);
      const position = altered.length - fromEnd;
      altered[position] = (altered[position] ?? 0) ^ 1;
      expect(openEnvelope(altered, [key])).toMatchObject({ problem: { code: 'not-authentic' } });
    }
  });

  test('truncated anywhere, an envelope does not open', () => {
    for (let length = 0; length < sealed.length; length += 1) {
      expect(openEnvelope(sealed.subarray(0, length), [key]).ok).toBe(false);
    }
  });

  test('never throws on arbitrary bytes', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 300 }), fc.nat({ max: 40 }), (noise, kept) => {
        expect(openEnvelope(noise, keys).ok).toBe(false);
        const begun = Buffer.concat([sealed.subarray(0, kept), noise]);
        expect(openEnvelope(begun, keys).ok).toBe(false);
      }),
      { numRuns: 500 },
    );
  });

  test('says what is the matter', () => {
    expect(openEnvelope(content, keys)).toMatchObject({ problem: { code: 'not-an-envelope' } });
    expect(openEnvelope(sealed, [])).toMatchObject({ problem: { code: 'not-for-us' } });
    expect(openEnvelope(new Uint8Array(envelopeBytesMax + 1), keys)).toMatchObject({
      problem: { code: 'too-large' },
    });
    const weak = opensslEncrypt(content, [identity('rsa-2048')], ['-des3']);
    expect(openEnvelope(weak, keys)).toMatchObject({ problem: { code: 'unsupported' } });
    const { certificatePath, keyPath } = identity('P-256');
    const signer = ['-signer', certificatePath, '-inkey', keyPath];
    const signed = openssl(
      ['cms', '-sign', '-binary', '-nodetach', '-outform', 'DER', ...signer],
      content,
    );
    expect(openEnvelope(signed, keys)).toMatchObject({ problem: { code: 'not-an-envelope' } });
    expect(looksLikeEnvelope(signed)).toBe(false);
    expect(looksLikeEnvelope(content)).toBe(false);
  });
});

describe('recipients', () => {
  test('are refused with a reason: none, too many, weak, private, another type', () => {
    const { certificatePem, keyPem } = identity('P-256');
    expect(() => parseRecipients('hello')).toThrow('no PEM block');
    expect(() => parseRecipients(certificatePem.repeat(recipientsMax + 1))).toThrow('at most 16');
    expect(() => parseRecipients(keyPem)).toThrow('a private key');
    expect(() => parseRecipients(certificatePem.replace(/MI/, 'XX'))).toThrow('not a readable');
    const weak = openssl(['genrsa', '1024']);
    expect(() => parseRecipients(openssl(['rsa', '-pubout'], weak).toString())).toThrow(
      'RSA key of 1024 bits',
    );
    const edwards = openssl(['genpkey', '-algorithm', 'ed25519']);
    const edwardsPublic = openssl(['pkey', '-pubout'], edwards).toString();
    expect(() => parseRecipients(edwardsPublic)).toThrow('ed25519: take RSA or EC');
    expect(() => parseRecipientKey('hello', [])).toThrow('not a PEM private key');
  });
});
