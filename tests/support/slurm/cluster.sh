#!/usr/bin/env bash
# A real Slurm cluster of two nodes on this machine, with accounting and a GPU of the first that is only claimed, from
# Debian's packages, as root, without systemd. The second node is there for jobs on several nodes.
#
#   cluster.sh install    apt-get the packages; no daemon is started
#   cluster.sh start      write the configuration and start every daemon
#   cluster.sh up         install, then start                                        [default]
#   cluster.sh outage N   controller and accounting are away for N seconds; jobs go on
#   cluster.sh status     which daemons live
#   cluster.sh free       succeeds where this machine has no other cluster
#   cluster.sh stop       end all jobs, then the daemons
#   cluster.sh clean      stop, and remove the folder
#
# All that it writes lies under $SLURM_SANDBOX, but for a link, /etc/slurm/slurm.conf, which stop removes: Snakemake's
# plugin for a job's steps drops SLURM_CONF, so the cluster must be found without it. A machine that has a Slurm of its
# own is refused. Partitions cpu (the first node) and gpu (both), account lab.
#
#   SLURM_SANDBOX    where ($TMPDIR/slurm-sandbox)      SLURM_GPUS, SLURM_GPU_TYPE    1 of type a100
#   SLURM_CPUS       claimed by each node: as many as   SLURM_MEM_MB                  claimed by each node: nine tenths
#                    there are                                                       of what there is
#   SLURM_PORT_BASE  first of four ports (16810)
set -euo pipefail

SB=${SLURM_SANDBOX:-${TMPDIR:-/tmp}/slurm-sandbox}
GPUS=${SLURM_GPUS:-1}
GPU_TYPE=${SLURM_GPU_TYPE-a100}
CPUS=${SLURM_CPUS:-$(nproc)}
MEM=${SLURM_MEM_MB:-$(awk '/MemTotal/{print int($2/1024*0.9)}' /proc/meminfo)}
PORT=${SLURM_PORT_BASE:-16810}
NODES=(node1 node2)             # not the host's name: they resolve by NodeAddr
CLUSTER=sandbox
PKGS=(munge slurmctld slurmd slurm-client slurmdbd mariadb-server)

log() { printf '[cluster] %s\n' "$*" >&2; }

install_pkgs() {
    local missing=() p
    for p in "${PKGS[@]}"; do
        dpkg-query -W -f='${Status}' "$p" 2>/dev/null | grep -q 'ok installed' || missing+=("$p")
    done
    [ ${#missing[@]} -eq 0 ] && { log "packages already there"; return; }
    # Debian's maintainer scripts start daemons where they can; policy-rc.d answers "do not" while this runs.
    local prc=/usr/sbin/policy-rc.d
    if [ ! -e $prc ]; then printf '#!/bin/sh\nexit 101\n' > $prc; chmod 755 $prc; trap "rm -f $prc" EXIT; fi
    export DEBIAN_FRONTEND=noninteractive
    log "installing ${missing[*]}"
    mkdir -p "$SB"
    if ! apt_install "${missing[@]}" >"$SB/apt.log" 2>&1; then
        apt-get update -q >>"$SB/apt.log" 2>&1 || true
        apt_install "${missing[@]}" >>"$SB/apt.log" 2>&1 || { tail -20 "$SB/apt.log" >&2; exit 1; }
    fi
}

apt_install() { apt-get install -y -q --no-install-recommends "$@"; }

alive() { # alive NAME: pid on stdout if its pid file names a live process
    local f="$SB/run/$1.pid" pid
    [ -s "$f" ] || return 1
    pid=$(<"$f"); kill -0 "$pid" 2>/dev/null || return 1
    echo "$pid"
}

wait_for() { # wait_for SECONDS WHAT CMD...
    local n=$(( $1 * 10 )) what=$2; shift 2
    while ! "$@" >/dev/null 2>&1; do
        n=$(( n - 1 )); [ $n -gt 0 ] || { log "gave up waiting for $what"; return 1; }
        sleep 0.1
    done
}

write_conf() {
    mkdir -p "$SB"/{conf,run,log,state,spool,munge,mysql}
    chmod 755 "$SB" "$SB"/{conf,run,log}
    # munge: its own key and socket, owned by the user it runs as (root, forced)
    [ -s "$SB/munge/key" ] || head -c 1024 /dev/urandom > "$SB/munge/key"
    chmod 700 "$SB/munge"; chmod 400 "$SB/munge/key"
    local host; host=$(hostname -s)
    local gres_line="" gres_node="" gres_types=""
    if [ "$GPUS" -gt 0 ]; then
        gres_types="GresTypes=gpu"
        gres_node=" Gres=gpu:${GPU_TYPE:+$GPU_TYPE:}$GPUS"
        # slurmd 22.05 registers 0 gpus for a line with Count= but no File=
        # (the node goes INVAL). Each File= gets its own null device; a plain
        # file works too (slurmd logs an error, and goes on).
        local i; mkdir -p "$SB/dev"
        for ((i = 0; i < GPUS; i++)); do
            [ -e "$SB/dev/nvidia$i" ] || mknod -m 666 "$SB/dev/nvidia$i" c 1 3 2>/dev/null ||
                : > "$SB/dev/nvidia$i"
        done
        local range=0; [ "$GPUS" -gt 1 ] && range="[0-$((GPUS - 1))]"
        gres_line="NodeName=${NODES[0]} Name=gpu ${GPU_TYPE:+Type=$GPU_TYPE }File=$SB/dev/nvidia$range"
    fi
    printf 'AutoDetect=off\n%s\n' "$gres_line" > "$SB/conf/gres.conf"
    # v22.05 reads cgroup.conf even when no cgroup plugin is chosen; 'disabled'
    # does not exist there yet, cgroup/v1 + no plugin that uses it is enough.
    printf 'CgroupPlugin=cgroup/v1\nConstrainCores=no\nConstrainRAMSpace=no\nConstrainDevices=no\n' \
        > "$SB/conf/cgroup.conf"
    {
        cat <<C
ClusterName=$CLUSTER
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$PORT
AuthType=auth/munge
AuthInfo=socket=$SB/run/munge.socket
CredType=cred/munge
SlurmUser=root
SlurmdUser=root
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=5,bf_interval=5,batch_sched_delay=1,sched_min_interval=200000
ReturnToService=2
SlurmdParameters=config_overrides
StateSaveLocation=$SB/state
SlurmdSpoolDir=$SB/spool/%n
SlurmctldPidFile=$SB/run/slurmctld.pid
SlurmdPidFile=$SB/run/%n.pid
SlurmctldLogFile=$SB/log/slurmctld.log
SlurmdLogFile=$SB/log/%n.log
SlurmctldDebug=info
SlurmdDebug=info
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
EnforcePartLimits=ALL
KillWait=5
MinJobAge=300
DefMemPerCPU=1000
$gres_types
NodeName=DEFAULT CPUs=$CPUS Boards=1 SocketsPerBoard=1 CoresPerSocket=$CPUS ThreadsPerCore=1 RealMemory=$MEM State=UNKNOWN
NodeName=${NODES[0]} NodeHostname=$host NodeAddr=127.0.0.1 Port=$((PORT + 1))$gres_node
NodeName=${NODES[1]} NodeHostname=$host NodeAddr=127.0.0.1 Port=$((PORT + 3))
PartitionName=cpu Nodes=${NODES[0]} Default=YES MaxTime=1-00:00:00 State=UP
PartitionName=gpu Nodes=${NODES[0]},${NODES[1]} MaxTime=1-00:00:00 State=UP
C
        cat <<C
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort=$((PORT + 2))
AccountingStoragePass=$SB/run/munge.socket
AccountingStorageEnforce=associations,limits
AccountingStorageTRES=gres/gpu${GPU_TYPE:+,gres/gpu:$GPU_TYPE}
AccountingStoreFlags=job_comment,job_script
C
    } > "$SB/conf/slurm.conf"
    cat > "$SB/conf/slurmdbd.conf" <<C
AuthType=auth/munge
AuthInfo=socket=$SB/run/munge.socket
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort=$((PORT + 2))
SlurmUser=root
DebugLevel=info
LogFile=$SB/log/slurmdbd.log
PidFile=$SB/run/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=slurm
StoragePass=slurm
StorageLoc=slurm_acct_db
C
    chmod 600 "$SB/conf/slurmdbd.conf"
    cat > "$SB/conf/my.cnf" <<C
[client]
socket=$SB/run/mysqld.sock
[mariadbd]
datadir=$SB/mysql
socket=$SB/run/mysqld.sock
pid-file=$SB/run/mariadbd.pid
log-error=$SB/log/mariadbd.log
skip-networking
skip-name-resolve
user=mysql
innodb_buffer_pool_size=64M
innodb_lock_wait_timeout=900
innodb_flush_log_at_trx_commit=2
C
}

sql() { mariadb --defaults-file="$SB/conf/my.cnf" -u root "$@"; }

LINK=/etc/slurm/slurm.conf

# Whether no other cluster is in the way: a sandbox whose controller has died, which a killed test left, is none.
free() {
    [ -e $LINK ] || return 0
    local other; other=$(dirname "$(dirname "$(readlink $LINK)")")
    [ "$other" = "$SB" ] && return 0
    [ -L $LINK ] && grep -q "^ClusterName=$CLUSTER$" $LINK && ! SB=$other alive slurmctld >/dev/null
}

start() {
    export SLURM_CONF=$SB/conf/slurm.conf
    free || { log "$LINK exists and is not this sandbox's: refusing"; exit 1; }
    write_conf
    mkdir -p "${LINK%/*}"; ln -sfn "$SLURM_CONF" $LINK
    start_munge
    start_accounting
    start_slurm
    log "up: export SLURM_CONF=$SLURM_CONF"
}

start_munge() {
    if ! alive munged >/dev/null; then
        rm -f "$SB"/run/munge.socket*
        munged --force --key-file="$SB/munge/key" --socket="$SB/run/munge.socket" \
               --pid-file="$SB/run/munged.pid" --log-file="$SB/log/munged.log" \
               --seed-file="$SB/munge/seed" --num-threads=2 2>>"$SB/log/munged.err"
    fi
    wait_for 10 munged test -S "$SB/run/munge.socket"
}

start_accounting() {
    chown -R mysql "$SB/mysql"; chown root:mysql "$SB/run" "$SB/log"; chmod 775 "$SB/run" "$SB/log"
    if [ ! -d "$SB/mysql/mysql" ]; then
        mariadb-install-db --defaults-file="$SB/conf/my.cnf" --user=mysql \
            --auth-root-authentication-method=socket --skip-test-db >"$SB/log/mariadb-install.log" 2>&1
    fi
    if ! alive mariadbd >/dev/null; then
        setsid nohup mariadbd --defaults-file="$SB/conf/my.cnf" >>"$SB/log/mariadbd.out" 2>&1 </dev/null &
    fi
    wait_for 60 mariadbd sql -e 'select 1'
    sql -e "create database if not exists slurm_acct_db;
            create user if not exists 'slurm'@'localhost' identified by 'slurm';
            grant all on slurm_acct_db.* to 'slurm'@'localhost';"
    # slurmdbd takes its conf from the folder of SLURM_CONF
    alive slurmdbd >/dev/null || MYSQL_UNIX_PORT=$SB/run/mysqld.sock slurmdbd
    wait_for 60 slurmdbd sacctmgr -n list cluster
    sacctmgr -nP list cluster format=cluster | grep -qx "$CLUSTER" || sacctmgr -i add cluster "$CLUSTER" >/dev/null
    sacctmgr -nP list account format=account | grep -qx lab ||
        sacctmgr -i add account lab Cluster=$CLUSTER Description=lab Organization=lab >/dev/null
    sacctmgr -nP list assoc user=root account=lab format=user | grep -q root ||
        sacctmgr -i add user root account=lab DefaultAccount=lab >/dev/null
}

start_slurm() {
    alive slurmctld >/dev/null || slurmctld
    wait_for 30 slurmctld scontrol ping
    local node
    for node in "${NODES[@]}"; do
        alive "$node" >/dev/null || slurmd -N "$node"
    done
    for node in "${NODES[@]}"; do wake "$node"; done
}

wake() { # wake NODE: wait for it; one that was drained in an earlier life stays so until it is told
    if sinfo -h -n "$1" -o %t | grep -Eq 'drain|down|inval'; then
        wait_for 10 "slurmd to register" bash -c "scontrol show node $1 | grep -q SlurmdStartTime=20" || true
        scontrol update NodeName="$1" State=RESUME || true
    fi
    wait_for 30 "node $1 idle" bash -c "sinfo -h -n $1 -o %t | grep -Eq '^(idle|mix|alloc)$'" ||
        { sinfo -R; tail -n 5 "$SB/log/slurmctld.log" "$SB/log/$1.log" >&2; exit 1; }
}

end() { # end DAEMON...: by their pid files, in this order, waiting for each
    local d pid n
    for d in "$@"; do
        pid=$(alive "$d") || continue
        kill -TERM "$pid"
        n=300
        while kill -0 "$pid" 2>/dev/null; do
            n=$((n - 1)); [ $n -gt 0 ] || { log "$d ($pid) would not stop, killing"; kill -KILL "$pid"; break; }
            sleep 0.1
        done
        rm -f "$SB/run/$d.pid"
    done
}

stop() {
    export SLURM_CONF=$SB/conf/slurm.conf
    # jobs first, so that no slurmstepd is left behind
    if alive slurmctld >/dev/null; then
        local jobs; jobs=$(squeue -h -o %A 2>/dev/null || true)
        if [ -n "$jobs" ]; then
            scancel $jobs || true
            wait_for 20 "jobs to end" bash -c '[ -z "$(squeue -h -o %A)" ]' || true
        fi
    fi
    end "${NODES[@]}" slurmctld slurmdbd mariadbd munged
    if [ "$(readlink $LINK 2>/dev/null)" = "$SLURM_CONF" ]; then rm -f $LINK; fi
    log stopped
}

outage() { # outage SECONDS: as when the machine of the controller is started anew
    end slurmctld slurmdbd
    sleep "$1"
    start
}

status() {
    export SLURM_CONF=$SB/conf/slurm.conf
    local d pid rc=0
    for d in munged mariadbd slurmdbd slurmctld "${NODES[@]}"; do
        if pid=$(alive $d); then echo "$d $pid"; else echo "$d -"; rc=1; fi
    done
    [ $rc = 0 ] && sinfo -N -o '%N %t %c %m %G %P' || return $rc
}

case ${1:-up} in
    install) install_pkgs ;;
    start)   start ;;
    up)      install_pkgs; start ;;
    outage)  outage "$2" ;;
    status)  status ;;
    free)    free ;;
    stop)    stop ;;
    clean)   stop; rm -rf "$SB" ;;
    *)       sed -n '2,22p' "$0"; exit 2 ;;
esac
