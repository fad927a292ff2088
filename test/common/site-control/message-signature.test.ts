import { generateKeyPairSync } from 'node:crypto';

import { createSigner, createVerifier, httpbis } from 'http-message-signatures';
import { describe, expect, test } from 'vitest';

import {
  answerVerifies,
  contentDigestOf,
  digestMatches,
  parseAnswerSignature,
  parseRequestSignature,
  requestVerifies,
  signAnswer,
  signRequest,
} from '../../../common/site-control/message-signature.ts';
import { algorithmOf, keyIdOf } from '../../../common/site-control/site-keys.ts';

const kinds = {
  ed25519: generateKeyPairSync('ed25519'),
  'ecdsa-p256-sha256': generateKeyPairSync('ec', { namedCurve: 'prime256v1' }),
} as const;
const nowS = Math.floor(Date.now() / 1_000);
const times = { createdS: nowS, expiresS: nowS + 60, nonce: 'abcdefghijklmnopqrstuv' };
const body = Buffer.from('{"kind":"standing"}');
const request = {
  method: 'POST',
  targetUri: 'https://127.0.0.1:4433/v1/subscriptions',
  contentDigest: contentDigestOf(body),
  idempotencyKey: 'key-1',
  relation: 'a-b',
};
const headersOf = (signed: typeof request): Record<string, string> => ({
  'Content-Digest': signed.contentDigest,
  'Idempotency-Key': signed.idempotencyKey,
  'Isobar-Relation': signed.relation,
});

describe.each(Object.entries(kinds))('signatures with %s', (name, { privateKey, publicKey }) => {
  const algorithm = name as keyof typeof kinds;
  const verifier = {
    keyLookup: () =>
      Promise.resolve({
        id: keyIdOf(publicKey),
        algs: [algorithm],
        verify: createVerifier(publicKey.export({ type: 'spki', format: 'pem' }), algorithm),
      }),
  };

  test('the algorithm is that of the key', () => {
    expect(algorithmOf(publicKey)).toBe(algorithm);
    expect(keyIdOf(privateKey)).toBe(keyIdOf(publicKey));
  });

  test('another implementation of RFC 9421 verifies our requests and answers', async () => {
    const fields = signRequest(request, times, privateKey);
    const message = {
      method: request.method,
      url: request.targetUri,
      headers: {
        ...headersOf(request),
        'Signature-Input': fields.signatureInput,
        Signature: fields.signature,
      },
    };
    expect(await httpbis.verifyMessage(verifier, message)).toBe(true);
    const altered = { ...message, method: 'GET' };
    expect(await httpbis.verifyMessage(verifier, altered)).toBe(false);

    const answer = { status: 200, contentDigest: contentDigestOf(Buffer.from('{}')) };
    const answered = signAnswer(
      { ...answer, requestSignature: fields.signature },
      times,
      privateKey,
    );
    const response = {
      status: 200,
      headers: {
        'Content-Digest': answer.contentDigest,
        'Signature-Input': answered.signatureInput,
        Signature: answered.signature,
      },
    };
    expect(await httpbis.verifyMessage(verifier, response, message)).toBe(true);
    const other = {
      ...message,
      headers: { ...message.headers, Signature: `isobar=:${'A'.repeat(86)}==:` },
    };
    expect(await httpbis.verifyMessage(verifier, response, other)).toBe(false);
  });

  test('we verify what another implementation of RFC 9421 signed in our form', async () => {
    const signer = createSigner(
      privateKey.export({ type: 'pkcs8', format: 'pem' }),
      algorithm,
      keyIdOf(publicKey),
    );
    const signed = await httpbis.signMessage(
      {
        key: signer,
        name: 'isobar',
        fields: ['@method', '@target-uri', 'content-digest', 'idempotency-key', 'isobar-relation'],
        params: ['created', 'expires', 'nonce', 'keyid', 'alg'],
        paramValues: {
          created: new Date(times.createdS * 1_000),
          expires: new Date(times.expiresS * 1_000),
          nonce: times.nonce,
        },
      },
      { method: request.method, url: request.targetUri, headers: headersOf(request) },
    );
    const parsed = parseRequestSignature({
      signatureInput: String(signed.headers['Signature-Input']),
      signature: String(signed.headers['Signature']),
    });
    expect(parsed?.parameters).toEqual({ ...times, keyId: keyIdOf(publicKey), algorithm });
    expect(requestVerifies(request, parsed!, publicKey)).toBe(true);
  });

  test('a signature covers each of the components, and the key by its name and algorithm', () => {
    const parsed = parseRequestSignature(signRequest(request, times, privateKey));
    expect(requestVerifies(request, parsed!, publicKey)).toBe(true);
    for (const component of Object.keys(request)) {
      const altered = { ...request, [component]: `${request[component as keyof typeof request]}x` };
      expect(requestVerifies(altered, parsed!, publicKey)).toBe(false);
    }
    for (const other of Object.values(kinds)) {
      if (other.publicKey === publicKey) continue;
      expect(requestVerifies(request, parsed!, other.publicKey)).toBe(false);
    }
  });

  test('an answer is bound to its status, its body and the request it answers', () => {
    const { signature } = signRequest(request, times, privateKey);
    const second = signRequest(request, { ...times, nonce: 'x'.repeat(22) }, privateKey);
    const answer = {
      status: 200,
      contentDigest: contentDigestOf(body),
      requestSignature: signature,
    };
    const parsed = parseAnswerSignature(signAnswer(answer, times, privateKey));
    expect(answerVerifies(answer, parsed!, publicKey)).toBe(true);
    const alterations = [
      { status: 409 },
      { contentDigest: contentDigestOf(Buffer.from('x')) },
      { requestSignature: second.signature },
    ];
    for (const alteration of alterations) {
      expect(answerVerifies({ ...answer, ...alteration }, parsed!, publicKey)).toBe(false);
    }
  });
});

describe('the form of a signature', () => {
  const fields = signRequest(request, times, kinds.ed25519.privateKey);

  test.each([
    ['fewer components', (input: string) => input.replace(' "content-digest"', '')],
    [
      'another order',
      (input: string) => input.replace('"@method" "@target-uri"', '"@target-uri" "@method"'),
    ],
    ['no expiry', (input: string) => input.replace(/;expires=\d+/, '')],
    ['no nonce', (input: string) => input.replace(/;nonce="[^"]+"/, '')],
    ['a short nonce', (input: string) => input.replace(/nonce="[^"]+"/, 'nonce="abc"')],
    ['another algorithm', (input: string) => input.replace('ed25519', 'hmac-sha256')],
    ['another label', (input: string) => input.replace('isobar=', 'sig1=')],
    ['two signatures', (input: string) => `${input}, ${input}`],
    ['a parameter more', (input: string) => `${input};tag="x"`],
  ])('%s is refused', (_name, alter) => {
    expect(parseRequestSignature(fields)).toBeDefined();
    const altered = { ...fields, signatureInput: alter(fields.signatureInput) };
    expect(altered.signatureInput).not.toBe(fields.signatureInput);
    expect(parseRequestSignature(altered)).toBeUndefined();
  });

  test('the signature of an answer is none of a request', () => {
    const answer = {
      status: 200,
      contentDigest: request.contentDigest,
      requestSignature: fields.signature,
    };
    const answered = signAnswer(answer, times, kinds.ed25519.privateKey);
    expect(parseRequestSignature(answered)).toBeUndefined();
    expect(parseAnswerSignature(fields)).toBeUndefined();
  });

  test('only one SHA-256 digest is one', () => {
    const digest = contentDigestOf(body);
    expect(digestMatches(digest, body)).toBe(true);
    expect(digestMatches(digest, Buffer.from('other'))).toBe(false);
    expect(digestMatches(`${digest}, ${digest}`, body)).toBe(false);
    expect(digestMatches(digest.replace('sha-256', 'sha-512'), body)).toBe(false);
    expect(digestMatches('', body)).toBe(false);
  });
});
