import { Hono, type Context } from 'hono';
import { z } from 'zod';

import { formatProblem } from '../../common/config/load-config.ts';
import { OperatingError } from '../../common/runtime/operating-error.ts';
import {
  checkDescriptor,
  DescriptorError,
  type DescriptorErrorCode,
} from '../vm/descriptor-store.ts';
import type { VmSupervisor } from '../vm/vm-supervisor.ts';

const setMonitoringBody = z.strictObject({
  /** The revision that the change was made from. */
  expectedRevision: z.int().positive(),
  monitoring: z.unknown(),
});

/** A request body is at most this; a larger one is refused with 413. */
export const controlBodyBytesMax = 4 * 1_024 * 1_024;

const statusByCode = {
  'descriptor-invalid': 422,
  'vm-exists': 409,
  'vm-unknown': 404,
  'vm-limit': 507,
  'revision-conflict': 409,
} as const satisfies Record<DescriptorErrorCode, number>;

/**
 * The collector's control API, served on a unix socket.
 *
 *     GET    /vms                    descriptors
 *     POST   /vms                    add: a descriptor                           201
 *     GET    /vms/:vm                one descriptor
 *     DELETE /vms/:vm                end its streams and forget it               204
 *     PUT    /vms/:vm/monitoring     {expectedRevision, monitoring}: compare-and-set
 *     POST   /check                  a descriptor: what is wrong with it, changing nothing
 *     GET    /status                 each VM's state, and what each stage counted
 *
 * Errors are `{code, message, problems}` with the codes of DescriptorError, `body-invalid`, `body-too-large`,
 * `not-found` and `internal`.
 */
export function createControlApi(deps: { readonly vms: VmSupervisor }): Hono {
  const { vms } = deps;
  const api = new Hono();
  api.get('/vms', (context) => context.json({ vms: vms.list() }));
  api.post('/vms', async (context) => context.json(await vms.add(await readBody(context)), 201));
  api.get('/vms/:vm', (context) => context.json(vms.read(context.req.param('vm'))));
  api.delete('/vms/:vm', async (context) => {
    await vms.remove(context.req.param('vm'));
    return context.body(null, 204);
  });
  api.put('/vms/:vm/monitoring', async (context) => {
    const parsed = setMonitoringBody.safeParse(await readBody(context));
    if (!parsed.success) throw new BodyError('body-invalid', z.prettifyError(parsed.error));
    const { expectedRevision, monitoring } = parsed.data;
    return context.json(vms.setMonitoring(context.req.param('vm'), expectedRevision, monitoring));
  });
  api.post('/check', async (context) => context.json(checkDescriptor(await readBody(context))));
  api.get('/status', (context) => context.json({ vms: vms.status() }));
  api.notFound((context) => {
    const message = `no such path: ${context.req.path}`;
    return context.json({ code: 'not-found', message, problems: [] }, 404);
  });
  api.onError((error, context) => answerError(error, context));
  return api;
}

class BodyError extends OperatingError<'body-invalid' | 'body-too-large'> {
  override readonly name = 'BodyError';
}

async function readBody(context: Context): Promise<unknown> {
  const text = await context.req.text();
  if (text.length > controlBodyBytesMax) {
    throw new BodyError('body-too-large', `a body has at most ${controlBodyBytesMax} bytes`);
  }
  try {
    return JSON.parse(text);
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new BodyError('body-invalid', `the body is no JSON: ${reason}`, { cause });
  }
}

function answerError(error: Error, context: Context): Response {
  if (error instanceof DescriptorError) {
    const { code, message, problems } = error;
    const lines = problems.map((problem) => formatProblem(problem));
    return context.json(
      { code, message: [message, ...lines].join('\n'), problems },
      statusByCode[code],
    );
  }
  if (error instanceof BodyError) {
    const { code, message } = error;
    return context.json({ code, message, problems: [] }, code === 'body-too-large' ? 413 : 400);
  }
  return context.json({ code: 'internal', message: error.message, problems: [] }, 500);
}
