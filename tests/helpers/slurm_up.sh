#!/usr/bin/env bash
# A Slurm with accounting and two nodes, n1 and n2, on this one machine; as root, without systemd.
#   slurm_up.sh FOLDER          then: export SLURM_CONF=FOLDER/slurm.conf
#   slurm_up.sh --down FOLDER
# Needs (Debian): slurm-wlm munge slurmdbd mariadb-server. Only what this script started is ended.
set -euo pipefail

down=0
if [ "$1" = --down ]; then down=1; shift; fi
folder=$1
host=$(hostname -s)

if [ "$down" = 1 ]; then
  for name in slurmd.n1 slurmd.n2 slurmctld slurmdbd mysql; do
    if [ -f "$folder/$name.pid" ]; then kill "$(cat "$folder/$name.pid")" 2>/dev/null || true; fi
  done
  exit 0
fi

wait_for() {  # COMMAND...: for half a minute
  for _ in $(seq 60); do
    if "$@" >/dev/null 2>&1; then return 0; fi
    sleep 0.5
  done
  echo "gave up: $*" >&2
  return 1
}

mkdir -p "$folder"/{state,log,spool.n1,spool.n2}
grep -qE '\bn1\b.*\bn2\b' /etc/hosts || echo "127.0.0.1 n1 n2" >> /etc/hosts

[ -f /etc/munge/munge.key ] || /usr/sbin/mungekey --create
mkdir -p /run/munge
chown munge:munge /run/munge /etc/munge /etc/munge/munge.key
chmod 755 /run/munge
munge -n >/dev/null 2>&1 || su -s /bin/sh munge -c /usr/sbin/munged

# Without accounting sacct knows nothing of a job that has ended.
sql() { mariadb --no-defaults -uroot -S "$folder/mysql.sock" "$@"; }
mariadb-install-db --no-defaults --user=root --datadir="$folder/mysql" \
  --auth-root-authentication-method=normal --skip-test-db >/dev/null 2>&1
setsid mariadbd --no-defaults --user=root --datadir="$folder/mysql" --socket="$folder/mysql.sock" \
  --port=33306 --bind-address=127.0.0.1 --innodb-buffer-pool-size=64M --pid-file="$folder/mysql.pid" \
  > "$folder/log/mysqld.log" 2>&1 < /dev/null &
wait_for sql -e 'select 1'
sql -e "create database slurm_acct_db;
  create user slurm@'127.0.0.1' identified by 'slurm'; create user slurm@localhost identified by 'slurm';
  grant all on slurm_acct_db.* to slurm@'127.0.0.1'; grant all on slurm_acct_db.* to slurm@localhost"

cat > "$folder/slurmdbd.conf" <<END
AuthType=auth/munge
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort=26819
SlurmUser=root
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort=33306
StorageUser=slurm
StoragePass=slurm
StorageLoc=slurm_acct_db
LogFile=$folder/log/slurmdbd.log
PidFile=$folder/slurmdbd.pid
END
chmod 600 "$folder/slurmdbd.conf"

cat > "$folder/slurm.conf" <<END
ClusterName=test
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
SlurmctldPort=26817
StateSaveLocation=$folder/state
SlurmctldPidFile=$folder/slurmctld.pid
SlurmctldLogFile=$folder/log/slurmctld.log
SlurmdSpoolDir=$folder/spool.%n
SlurmdPidFile=$folder/slurmd.%n.pid
SlurmdLogFile=$folder/log/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort=26819
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
ReturnToService=2
KillWait=20
SlurmdParameters=config_overrides
NodeName=n1 NodeHostname=$host NodeAddr=127.0.0.1 Port=26821 CPUs=4 Boards=1 SocketsPerBoard=1 CoresPerSocket=4 ThreadsPerCore=1 RealMemory=4000 State=UNKNOWN
NodeName=n2 NodeHostname=$host NodeAddr=127.0.0.1 Port=26822 CPUs=4 Boards=1 SocketsPerBoard=1 CoresPerSocket=4 ThreadsPerCore=1 RealMemory=4000 State=UNKNOWN
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
PartitionName=debug Nodes=n[1-2] Default=YES PriorityTier=1 MaxTime=INFINITE State=UP
PartitionName=warned Nodes=n[1-2] PriorityTier=1 GraceTime=60 MaxTime=INFINITE State=UP
PartitionName=urgent Nodes=n[1-2] PriorityTier=2 MaxTime=INFINITE State=UP
END

export SLURM_CONF=$folder/slurm.conf
slurmdbd
wait_for sacctmgr -n list cluster
sacctmgr -n list cluster | grep -q test || sacctmgr -i add cluster test >/dev/null
slurmctld -f "$SLURM_CONF"
sleep 1
slurmd -f "$SLURM_CONF" -N n1
slurmd -f "$SLURM_CONF" -N n2
idle() { [ "$(sinfo -h -o %T | sort -u)" = idle ]; }
wait_for idle
