import {
  EncryptedContentInfo,
  OriginatorInfo,
  RecipientInfos,
  CMSVersion,
} from '@peculiar/asn1-cms';
import { AsnProp, AsnPropTypes, OctetString } from '@peculiar/asn1-schema';
import { AlgorithmIdentifier } from '@peculiar/asn1-x509';

/** Object identifiers of what is made and read here. */
export const oids = {
  data: '1.2.840.113549.1.7.1',
  envelopedData: '1.2.840.113549.1.7.3',
  authEnvelopedData: '1.2.840.113549.1.9.16.1.23',
  rsaEncryption: '1.2.840.113549.1.1.1',
  rsaOaep: '1.2.840.113549.1.1.7',
  mgf1: '1.2.840.113549.1.1.8',
  ecPublicKey: '1.2.840.10045.2.1',
  sha1: '1.3.14.3.2.26',
  sha256: '2.16.840.1.101.3.4.2.1',
  sha384: '2.16.840.1.101.3.4.2.2',
  sha512: '2.16.840.1.101.3.4.2.3',
  ecdhSha256: '1.3.132.1.11.1',
  aes256Wrap: '2.16.840.1.101.3.4.1.45',
  aes256Gcm: '2.16.840.1.101.3.4.1.46',
} as const;

/** RFC 5083, 2.1. Authenticated attributes are recognised, and refused, by their being there. */
export class AuthEnvelopedData {
  version = CMSVersion.v0;
  originatorInfo?: OriginatorInfo;
  recipientInfos = new RecipientInfos();
  authEncryptedContentInfo = new EncryptedContentInfo();
  authAttrs?: ArrayBuffer;
  mac = new OctetString();
  unauthAttrs?: ArrayBuffer;
}

/** RFC 5084, 3.2. */
export class GcmParameters {
  nonce = new OctetString();
  tagBytes = 12;
}

/** RFC 8017, A.2.1; absent fields mean SHA-1. */
export class OaepParameters {
  hash?: AlgorithmIdentifier;
  mask?: AlgorithmIdentifier;
  source?: AlgorithmIdentifier;
}

/** RFC 5753, 7.2. */
export class EccSharedInfo {
  keyInfo = new AlgorithmIdentifier();
  entityUInfo?: OctetString;
  suppPubInfo = new OctetString();
}

/** Schemas are declared with calls, as decorators are no syntax that can be erased. */
const declare = {
  integer: AsnProp({ type: AsnPropTypes.Integer }),
  octets: AsnProp({ type: OctetString }),
};
declare.integer(AuthEnvelopedData.prototype, 'version');
AsnProp({ type: OriginatorInfo, context: 0, implicit: true, optional: true })(
  AuthEnvelopedData.prototype,
  'originatorInfo',
);
AsnProp({ type: RecipientInfos })(AuthEnvelopedData.prototype, 'recipientInfos');
AsnProp({ type: EncryptedContentInfo })(AuthEnvelopedData.prototype, 'authEncryptedContentInfo');
AsnProp({ type: AsnPropTypes.Any, context: 1, implicit: true, optional: true })(
  AuthEnvelopedData.prototype,
  'authAttrs',
);
declare.octets(AuthEnvelopedData.prototype, 'mac');
AsnProp({ type: AsnPropTypes.Any, context: 2, implicit: true, optional: true })(
  AuthEnvelopedData.prototype,
  'unauthAttrs',
);
declare.octets(GcmParameters.prototype, 'nonce');
AsnProp({ type: AsnPropTypes.Integer, defaultValue: 12 })(GcmParameters.prototype, 'tagBytes');
AsnProp({ type: AlgorithmIdentifier, context: 0, optional: true })(
  OaepParameters.prototype,
  'hash',
);
AsnProp({ type: AlgorithmIdentifier, context: 1, optional: true })(
  OaepParameters.prototype,
  'mask',
);
AsnProp({ type: AlgorithmIdentifier, context: 2, optional: true })(
  OaepParameters.prototype,
  'source',
);
AsnProp({ type: AlgorithmIdentifier })(EccSharedInfo.prototype, 'keyInfo');
AsnProp({ type: OctetString, context: 0, optional: true })(EccSharedInfo.prototype, 'entityUInfo');
AsnProp({ type: OctetString, context: 2 })(EccSharedInfo.prototype, 'suppPubInfo');
