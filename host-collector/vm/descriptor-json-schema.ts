import { z } from 'zod';

import { vmDescriptorSchema } from '../../common/wire/vm-descriptor.ts';

/** The JSON Schema (2020-12) of a VM descriptor as a person writes it, as committed in docs/schema/. */
export function vmDescriptorJsonSchema(): string {
  const schema = z.toJSONSchema(vmDescriptorSchema, { io: 'input', target: 'draft-2020-12' });
  return `${JSON.stringify({ title: 'VM descriptor', ...schema }, null, 2)}\n`;
}
