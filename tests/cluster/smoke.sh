#!/usr/bin/env bash
# Runs real pods on the cluster that up.sh started and compares what Kubernetes says of them. Leaves its namespace; starts by deleting it.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=/dev/null
for part in settings processes control-plane; do source "$here/lib/$part.sh"; done

passed=0 failed=0
terminated='.status.containerStatuses[0].state.terminated'
waiting='.status.containerStatuses[0].state.waiting'

k() { kubectl --namespace smoke "$@"; }

field() { k get "$1" --output "jsonpath={$2}" 2>&1 || true; }

check() { # what seen wanted
    if [[ $2 == "$3" ]]; then
        passed=$((passed + 1))
        say "ok      $1"
    else
        failed=$((failed + 1))
        say "FAILED  $1: '$2', not '$3'"
    fi
}

# expect WHAT OBJECT JSONPATH VALUE: waits up to half a minute for it
expect() {
    local seen deadline=$((SECONDS + 30))
    until seen=$(field "$2" "$3"); [[ $seen == "$4" ]] || ((SECONDS >= deadline)); do sleep 0.2; done
    check "$1" "$seen" "$4"
}

kubectl delete namespace smoke --ignore-not-found --timeout 60s >/dev/null
kubectl create namespace smoke >/dev/null
until k get serviceaccount default >/dev/null 2>&1; do sleep 0.1; done
sed "s/@API_SERVER_PORT@/$API_SERVER_PORT/" "$here/smoke/pods.yaml" | k create --filename - >/dev/null
say 'created'

# Followed while it runs: the five lines come over four seconds, not at once.
until [[ $(field pod/lines .status.phase) == Running ]]; do sleep 0.1; done
followed=$(k logs --follow lines | while read -r line; do echo "$SECONDS $line"; done)
check 'every line of a followed log' "$(cut -d' ' -f2- <<<"$followed" | tr '\n' ,)" 'line 1,line 2,line 3,line 4,line 5,'
first=${followed%% *} last=$(tail -n 1 <<<"$followed")
check 'a followed log comes as it is written' "$((${last%% *} - first >= 2))" 1

expect 'exit code 0' pod/exit-0 "$terminated.exitCode" 0
expect 'phase Succeeded' pod/exit-0 .status.phase Succeeded
check 'log' "$(k logs exit-0)" hello
expect 'exit code 3' pod/exit-3 "$terminated.exitCode" 3
expect 'termination message' pod/exit-3 "$terminated.message" why
expect 'python exits with 0' pod/python "$terminated.exitCode" 0
check 'python prints' "$(k logs python)" '[1]'
expect 'OOMKilled' pod/memory "$terminated.reason" OOMKilled
expect 'OOMKilled is 137' pod/memory "$terminated.exitCode" 137
expect 'no image' pod/no-image "$waiting.reason" ErrImageNeverPull
expect 'no secret' pod/no-secret "$waiting.reason" CreateContainerConfigError
expect 'deadline' pod/deadline .status.reason DeadlineExceeded
expect 'a sidecar does not keep a pod' pod/sidecar .status.phase Succeeded
expect 'config map volume, phase' pod/config-map .status.phase Succeeded
check 'config map volume, text' "$(k logs config-map)" 'hello from a file'
expect 'secret, phase' pod/secret .status.phase Succeeded
check 'secret in the environment' "$(k logs secret)" 'open sesame'
expect 'host network, phase' pod/api .status.phase Succeeded
check 'a service account token is known and has no rights' "$(k logs api)" '403 True'
expect 'job' job/job .status.succeeded 1

expect 'held pod runs' pod/held .status.phase Running
check 'exec' "$(k exec held -- echo inside)" inside
k delete pod held --wait=false >/dev/null
expect 'a deleted pod with a finalizer ends' pod/held "$terminated.exitCode" 7
sleep 2
check 'and stays' "$(field pod/held .metadata.finalizers)" '["smoke.test/observed"]'
k patch pod held --type merge --patch '{"metadata":{"finalizers":null}}' >/dev/null
expect 'until the finalizer goes' pod/held .metadata.name 'Error from server (NotFound): pods "held" not found'

printf '%s passed, %s failed\n' "$passed" "$failed"
((failed == 0))
