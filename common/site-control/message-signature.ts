import { createHash, timingSafeEqual, type KeyObject } from 'node:crypto';

import {
  algorithmOf,
  keyIdOf,
  signatureBytes,
  signText,
  verifyText,
  type SignatureAlgorithm,
} from './site-keys.ts';

/*
 * A profile of RFC 9421 (HTTP message signatures) and RFC 9530 (digest fields). Exactly one form is accepted, so that a
 * signature never covers less than what is acted upon:
 *
 *   request   Signature-Input: isobar=("@method" "@target-uri" "content-digest" "idempotency-key" "isobar-relation")
 *                              ;created=1;expires=2;nonce="...";keyid="...";alg="..."
 *   answer    Signature-Input: isobar=("@status" "content-digest" "signature";req;key="isobar");created=...
 *
 * The answer covers the request's signature, and so can't be moved to another request. Both carry
 * Content-Digest: sha-256=:...: of the body, an empty one too.
 */
const label = 'isobar';
const requestComponents = [
  '"@method"',
  '"@target-uri"',
  '"content-digest"',
  '"idempotency-key"',
  '"isobar-relation"',
] as const;
const answerComponents = [
  '"@status"',
  '"content-digest"',
  `"signature";req;key="${label}"`,
] as const;

/** Parameters of a signature; times are whole seconds of the epoch, as the RFC has them. */
export interface SignatureParameters {
  readonly createdS: number;
  readonly expiresS: number;
  /** 16 to 64 characters of base64url; a signer makes it from 16 random bytes. */
  readonly nonce: string;
  readonly keyId: string;
  readonly algorithm: SignatureAlgorithm;
}

/** What a request's signature covers. */
export interface SignedRequest {
  readonly method: string;
  /** `https://HOST:PORT/path` as the client addressed it. */
  readonly targetUri: string;
  readonly contentDigest: string;
  readonly idempotencyKey: string;
  readonly relation: string;
}

/** What an answer's signature covers. */
export interface SignedAnswer {
  readonly status: number;
  readonly contentDigest: string;
  /** The request's Signature field as it was sent. */
  readonly requestSignature: string;
}

/** The two fields that carry a signature. */
export interface SignatureFields {
  readonly signatureInput: string;
  readonly signature: string;
}

/** A signature that was read and not yet verified. */
export interface ParsedSignature {
  readonly parameters: SignatureParameters;
  /** The value of "@signature-params". */
  readonly parametersText: string;
  readonly signature: Buffer;
}

/** RFC 9530 Content-Digest of a body. */
export function contentDigestOf(body: Uint8Array): string {
  return `sha-256=:${createHash('sha256').update(body).digest('base64')}:`;
}

/** Whether the field is the digest of the body; other algorithms and several digests are refused. */
export function digestMatches(field: string, body: Uint8Array): boolean {
  const expected = Buffer.from(contentDigestOf(body));
  const found = Buffer.from(field);
  return found.length === expected.length && timingSafeEqual(found, expected);
}

/** Signs a request. */
export function signRequest(
  request: SignedRequest,
  times: Pick<SignatureParameters, 'createdS' | 'expiresS' | 'nonce'>,
  key: KeyObject,
): SignatureFields {
  const values = requestValues(request);
  return signFields(requestComponents, values, times, key);
}

/** Signs an answer to the request whose signature it covers. */
export function signAnswer(
  answer: SignedAnswer,
  times: Pick<SignatureParameters, 'createdS' | 'expiresS' | 'nonce'>,
  key: KeyObject,
): SignatureFields {
  return signFields(answerComponents, answerValues(answer), times, key);
}

/** Reads the signature of a request; undefined for any form but the one above. */
export function parseRequestSignature(fields: SignatureFields): ParsedSignature | undefined {
  return parseFields(requestShape, fields);
}

/** Reads the signature of an answer; undefined for any form but the one above. */
export function parseAnswerSignature(fields: SignatureFields): ParsedSignature | undefined {
  return parseFields(answerShape, fields);
}

/** Whether the request was signed by `key`, with the algorithm and the name of that key. */
export function requestVerifies(
  request: SignedRequest,
  parsed: ParsedSignature,
  key: KeyObject,
): boolean {
  return verifies(requestComponents, requestValues(request), parsed, key);
}

/** Whether the answer was signed by `key`, for the request whose signature it covers. */
export function answerVerifies(
  answer: SignedAnswer,
  parsed: ParsedSignature,
  key: KeyObject,
): boolean {
  return verifies(answerComponents, answerValues(answer), parsed, key);
}

/** Whether a field is a signature of our form: only then may an answer be bound to it. */
export function isSignatureField(field: string): boolean {
  return signatureShape.test(field);
}

function requestValues(request: SignedRequest): string[] {
  const { method, targetUri, contentDigest, idempotencyKey, relation } = request;
  return [method, targetUri, contentDigest, idempotencyKey, relation];
}

function answerValues(answer: SignedAnswer): string[] {
  const member = answer.requestSignature.slice(label.length + 1);
  return [String(answer.status), answer.contentDigest, member];
}

function signFields(
  components: readonly string[],
  values: readonly string[],
  times: Pick<SignatureParameters, 'createdS' | 'expiresS' | 'nonce'>,
  key: KeyObject,
): SignatureFields {
  const { createdS, expiresS, nonce } = times;
  const parametersText =
    `(${components.join(' ')});created=${createdS};expires=${expiresS};nonce="${nonce}"` +
    `;keyid="${keyIdOf(key)}";alg="${algorithmOf(key)}"`;
  const signature = signText(signatureBase(components, values, parametersText), key);
  return {
    signatureInput: `${label}=${parametersText}`,
    signature: `${label}=:${signature.toString('base64')}:`,
  };
}

/** RFC 9421 section 2.5. */
function signatureBase(
  components: readonly string[],
  values: readonly string[],
  parametersText: string,
): string {
  const lines = components.map((component, index) => `${component}: ${values[index] ?? ''}`);
  return [...lines, `"@signature-params": ${parametersText}`].join('\n');
}

function verifies(
  components: readonly string[],
  values: readonly string[],
  parsed: ParsedSignature,
  key: KeyObject,
): boolean {
  const { algorithm, keyId } = parsed.parameters;
  if (algorithm !== algorithmOf(key) || keyId !== keyIdOf(key)) return false;
  // A value with a line break could pose as further lines of the base; header values can't have one, but this is cheap.
  if (values.some((value) => value.includes('\n'))) return false;
  const base = signatureBase(components, values, parsed.parametersText);
  return verifyText(base, parsed.signature, key);
}

const signatureShape = new RegExp(`^${label}=:([A-Za-z0-9+/]{86}==):$`);
const requestShape = inputShape(requestComponents);
const answerShape = inputShape(answerComponents);

function inputShape(components: readonly string[]): RegExp {
  const list = components.join(' ');
  return new RegExp(
    `^${label}=(\\(${list}\\);created=(\\d{1,12});expires=(\\d{1,12});nonce="([A-Za-z0-9_-]{16,64})"` +
      `;keyid="([A-Za-z0-9_-]{43})";alg="(ed25519|ecdsa-p256-sha256)")$`,
  );
}

function parseFields(shape: RegExp, fields: SignatureFields): ParsedSignature | undefined {
  const [, parametersText = '', created, expires, nonce = '', keyId = '', algorithm] =
    shape.exec(fields.signatureInput) ?? [];
  const [, base64 = ''] = signatureShape.exec(fields.signature) ?? [];
  const signature = Buffer.from(base64, 'base64');
  if (parametersText === '' || signature.length !== signatureBytes) return undefined;
  return {
    parameters: {
      createdS: Number(created),
      expiresS: Number(expires),
      nonce,
      keyId,
      algorithm: algorithm === 'ed25519' ? 'ed25519' : 'ecdsa-p256-sha256',
    },
    parametersText,
    signature,
  };
}
