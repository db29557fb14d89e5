# Functions that start and end the servers for ci/dependents.sh, which sources this file and sets
# `root` and `scratch`. A server is a child process of the script, has its data in a directory below
# `scratch`, and listens only on loopback and Unix sockets.

# An entry "SIGNAL PID" for each running server. stop_servers ends the servers in this order.
servers=()

# free_port: prints a TCP port of 127.0.0.1 that no socket uses.
free_port() {
    python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

# Debian installs some of the servers in these directories, which are not in PATH.
PATH+=:/usr/sbin:/usr/lib/rabbitmq/bin
for directory in /usr/lib/postgresql/*/bin; do
    PATH+=:$directory
done
# The Debian package of each server.
declare -A debian_package=([dbus-daemon]=dbus [nginx]=nginx-light [postgres]=postgresql [pure-ftpd]=pure-ftpd
    [rabbitmq-server]=rabbitmq-server [redis-server]=redis-server)

# start_nginx: starts nginx, and waits until it listens, for at most 60 s. nginx sends the files of
# the directory NGINX_FILES, and is a gateway to a server of the tests on the Unix socket
# NGINX_UPSTREAM. Exports these variables, and NGINX_ADDR, the address of nginx.
start_nginx() {
    local data=$scratch/nginx port tries=0
    rm -rf "$data"
    mkdir -p "$data/files"
    port=$(free_port)
    export NGINX_ADDR=127.0.0.1:$port NGINX_FILES=$data/files NGINX_UPSTREAM=$data/upstream
    # The workers of root's nginx would run as another user. Only root can set their user.
    ((EUID != 0)) || printf 'user root;\n' >"$data/conf"
    sed "s|DATA|$data|; s|PORT|$port|" "$root/ci/dependents/nginx.conf" >>"$data/conf"
    nginx -p "$data" -c "$data/conf" -e stderr &
    servers=("TERM $!")
    until (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do
        ((++tries < 600)) || return 1
        sleep 0.1
    done
}

# start_pure_ftpd: creates a directory for the servers that suppaftp's tests start, and exports it
# as PURE_FTPD_DIRECTORY. Fails unless the user is root.
start_pure_ftpd() {
    ((EUID == 0)) || { printf 'pure-ftpd runs as root only\n'; return 1; }
    export PURE_FTPD_DIRECTORY=$scratch/pure-ftpd
    rm -rf "$PURE_FTPD_DIRECTORY"
    mkdir "$PURE_FTPD_DIRECTORY"
}

# start_postgres COPY: starts a database, waits until it answers, for at most 60 s, and runs the
# set-up statements of sqlx's tests. Exports DATABASE_URL. If the user is root, the database runs as
# the user postgres, because postgres refuses to run as root.
start_postgres() {
    local data=$scratch/postgres as=() port tries=0
    rm -rf "$data"
    mkdir "$data"
    if ((EUID == 0)); then
        chown postgres "$data"
        as=(setpriv --reuid=postgres --regid=postgres --init-groups)
    fi
    port=$(free_port)
    (cd / && "${as[@]}" initdb --auth=trust --username=postgres --no-sync "$data/data")
    (cd / && exec "${as[@]}" postgres -D "$data/data" -h 127.0.0.1 -p "$port" -k "$data" -c fsync=off) &
    # After SIGTERM, postgres would wait until its clients disconnect.
    servers=("INT $!")
    export DATABASE_URL=postgres://postgres@127.0.0.1:$port/postgres
    until psql --quiet --command 'SELECT 1' "$DATABASE_URL" >/dev/null 2>&1; do
        ((++tries < 600)) || return 1
        sleep 0.1
    done
    psql --quiet --set ON_ERROR_STOP=1 --file "$1/tests/postgres/setup.sql" "$DATABASE_URL"
}

# start_rabbitmq: starts a broker, and epmd, the daemon with which Erlang's nodes register. Waits
# until the broker listens, for at most 60 s. Exports AMQP_ADDR.
start_rabbitmq() {
    local data=$scratch/rabbitmq port epmd_port distribution tries=0
    rm -rf "$data"
    mkdir "$data"
    epmd_port=$(free_port)
    port=$(free_port)
    distribution=$(free_port)
    epmd -port "$epmd_port" -address 127.0.0.1 &
    servers=("TERM $!")
    env HOME="$data" ERL_EPMD_PORT="$epmd_port" ERL_EPMD_ADDRESS=127.0.0.1 \
        RABBITMQ_NODENAME=dependents@localhost RABBITMQ_NODE_IP_ADDRESS=127.0.0.1 RABBITMQ_NODE_PORT="$port" \
        RABBITMQ_DIST_PORT="$distribution" RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS='-kernel inet_dist_use_interface {127,0,0,1}' \
        RABBITMQ_MNESIA_BASE="$data/data" RABBITMQ_LOG_BASE="$data/log" RABBITMQ_PID_FILE="$data/pid" \
        RABBITMQ_CONFIG_FILE="$data/config" RABBITMQ_CONF_ENV_FILE="$data/env" RABBITMQ_ENABLED_PLUGINS_FILE="$data/plugins" \
        /usr/lib/rabbitmq/bin/rabbitmq-server &
    servers=("TERM $!" "${servers[@]}")
    export AMQP_ADDR=amqp://127.0.0.1:$port/%2f
    until (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do
        ((++tries < 600)) || return 1
        sleep 0.1
    done
}

# start_server PROGRAM COPY: starts the server PROGRAM for the tests in COPY. Does nothing for
# redis-server, which the tests start, and for dbus-daemon, which dbus-run-session starts.
start_server() {
    case $1 in
        nginx) start_nginx ;;
        pure-ftpd) start_pure_ftpd ;;
        postgres) start_postgres "$2" ;;
        rabbitmq-server) start_rabbitmq ;;
    esac
}

# stop_servers: ends the servers, and waits until they have ended.
stop_servers() {
    local server
    for server in "${servers[@]}"; do
        kill -s "${server% *}" "${server#* }" 2>/dev/null || true
        wait "${server#* }" || true
    done
    servers=()
}
