import { z } from 'zod';

import { vmDescriptorSchema } from '../wire/vm-descriptor.ts';

/** GET /v1/vms/ID, and the answer to POST /v1/vms and PUT /v1/vms/ID/monitoring. */
export const vmAnswerSchema = vmDescriptorSchema;

/** GET /v1/vms */
export const vmListAnswerSchema = z.object({ vms: z.array(vmDescriptorSchema) });
