import { runProcess } from '../common/runtime/run-process.ts';
import { buildPrimarySite } from './build-primary-site.ts';
import { primarySiteConfigSchema } from './primary-site-config.ts';

await runProcess({
  name: 'primary-site',
  schema: primarySiteConfigSchema,
  dataDirectoryOf: ({ dataDirectory }) => dataDirectory,
  build: (config, dependencies) => buildPrimarySite(config, dependencies).service,
});
