import { backendNames } from '../../../guest-agent/fuse/backend-capability.ts';
import { initFlag2 } from '../../../guest-agent/fuse/protocol/init.ts';
import { describeFuseContract } from '../../support/fuse-contract.ts';
import { mountBackend, mountRealBackend } from '../../support/mounted-backend.ts';

describeFuseContract('dev-fuse', () => mountBackend('dev-fuse'));
describeFuseContract(
  'dev-fuse',
  () => mountBackend('dev-fuse', initFlag2.directIoAllowsMmap | initFlag2.resend),
  ' with what kernels before 6.6 offer',
);
describeFuseContract('fuse-native', () => mountBackend('fuse-native'));
for (const backend of backendNames) {
  describeFuseContract(
    backend,
    () => mountRealBackend(backend),
    ' with the real file system and databases',
  );
}
