#!/usr/bin/env bash
# A job of dtap-dask on SLURM: a scheduler on the first node, a worker for each task, all ended with the job.
#
#   sbatch --ntasks 8 --cpus-per-task 1 --mem-per-cpu 4G docker/slurm.sh jobs/taxi.yaml [options of dtap-dask run]
#
# Submit it from a folder that all nodes see, in an environment with dtap-dask in it (TensorFlow is not needed). Three
# minutes before its time is up the run is stopped as by Ctrl-C (exit code 4); submit it with --resume to go on.
#SBATCH --job-name=dtap-dask
#SBATCH --signal=B:TERM@180
set -euo pipefail
: "${1:?usage: sbatch docker/slurm.sh JOB [options of dtap-dask run]}"

# The certificate is made anew for each job: others on this cluster reach the scheduler's port, but are not let in.
umask 077
folder=$(mktemp -d "$PWD/.dtap-dask-XXXXXX")
started=()
# shellcheck disable=SC2317  # the trap calls it
finish() {
  # Workers go by themselves when their scheduler does; an srun that is told to end them kills them and says so.
  for process in "${started[@]}"; do
    kill "$process" 2> /dev/null || true
    for _ in {1..20}; do kill -0 "${started[-1]}" 2> /dev/null && sleep 0.5; done
  done
  wait
  rm -rf "$folder"
}
trap finish EXIT
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=dtap-dask -days 60 \
  -keyout "$folder/key.pem" -out "$folder/certificate.pem" 2> /dev/null
export DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION=true
export DASK_DISTRIBUTED__COMM__TLS__CA_FILE=$folder/certificate.pem
for role in SCHEDULER WORKER CLIENT; do
  export "DASK_DISTRIBUTED__COMM__TLS__${role}__CERT=$folder/certificate.pem"
  export "DASK_DISTRIBUTED__COMM__TLS__${role}__KEY=$folder/key.pem"
done

# DTAP_INTERFACE: the network between the nodes where there are several, such as ib0. The page is on this node's loopback
# only; its port is in the log. From your machine: ssh -L 8787:127.0.0.1:PORT NODE
network=()
[[ -z ${DTAP_INTERFACE:-} ]] || network=(--interface "$DTAP_INTERFACE")
memory=auto
[[ -z ${SLURM_MEM_PER_CPU:-} ]] || memory=$((SLURM_MEM_PER_CPU * ${SLURM_CPUS_PER_TASK:-1}))MiB
file=$folder/scheduler.json
dask scheduler --protocol tls --port 0 "${network[@]}" --dashboard-address 127.0.0.1:0 --scheduler-file "$file" &
started+=("$!")
# One worker that ends takes no other with it: dtap-dask does its work elsewhere.
srun --kill-on-bad-exit=0 dask worker --scheduler-file "$file" "${network[@]}" --nthreads "${SLURM_CPUS_PER_TASK:-1}" \
  --memory-limit "$memory" --local-directory "${TMPDIR:-/tmp}" --death-timeout 120 --no-dashboard &
started+=("$!")

dtap-dask run "$@" --scheduler-file "$file" &
run=$!
signalled=
trap 'signalled=yes; kill -TERM "$run" 2> /dev/null || true' TERM
code=0
wait "$run" || code=$?
if [[ -n $signalled ]]; then  # that wait ended with the signal, not with the run
  code=0
  wait "$run" || code=$?
fi
exit "$code"
