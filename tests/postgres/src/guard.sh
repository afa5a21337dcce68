# Holds a PostgreSQL server for another process, which writes commands to standard
# input, one a line, and reads a line in answer to each. When there is nothing more
# to read, that process has ended, however it did: the server ends at once, and its
# folder goes.
#
# Arguments: the folder, initdb, postgres, and as in NAME=value the environment of
# the server alone.

# The system sends it when that process ends while the server is stopped.
trap '' HUP
folder=$1 initdb=$2 postgres=$3
shift 3
server=
while read -r command options; do
  case $command in
    init)
      # shellcheck disable=SC2086
      "$initdb" --pgdata="$folder/data" --username=superuser --pwfile="$folder/password" \
        --auth=scram-sha-256 --encoding=UTF8 --no-sync $options \
        </dev/null >>"$folder/log" 2>&1
      echo "$?"
      ;;
    start)
      env "$@" "$postgres" -D "$folder/data" </dev/null >>"$folder/log" 2>&1 &
      server=$!
      echo "$server"
      ;;
    wait)
      wait "$server"
      echo "$?"
      server=
      ;;
  esac
done
if [ -n "$server" ]; then
  kill -QUIT "$server"
  # It may be stopped.
  kill -CONT "$server"
  wait "$server"
fi
rm -rf "$folder"
