import type { FileTlsIdentity } from '../../common/identity/file-tls-identity.ts';
import type { Log } from '../../common/runtime/log.ts';
import type { Service } from '../../common/runtime/service.ts';
import type { NeighbourRole } from './neighbour-rights.ts';

/**
 * At the start, once `identity` knows its site, warns of each relation of the configuration that the site has not pinned,
 * or in which the neighbour is the other role there. It is no error, as sites change while their processes run.
 */
export function relationCheck(
  deps: { readonly identity: FileTlsIdentity; readonly log: Log },
  options: {
    readonly roles: ReadonlyMap<string, NeighbourRole>;
    /** What names the files to who reads the warning. */
    readonly configPath: string | undefined;
    readonly siteDocument: string;
  },
): Service {
  const { roles, configPath, siteDocument } = options;
  return {
    name: 'relation-check',
    start: () => {
      const { neighbours } = deps.identity.document;
      for (const [relation, role] of roles) {
        const roleAtSite = neighbours.find((each) => each.relation === relation)?.role;
        if (roleAtSite === role) continue;
        deps.log.warn(roleAtSite === undefined ? 'relation-not-trusted' : 'relation-role-differs', {
          relation,
          neighbourIs: role,
          ...(configPath === undefined ? {} : { inFile: configPath }),
          neighbourIsAtSite: roleAtSite ?? null,
          siteDocument,
        });
      }
      return Promise.resolve();
    },
    stop: () => Promise.resolve(),
  };
}
