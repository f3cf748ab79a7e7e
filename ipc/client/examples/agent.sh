#!/bin/sh
# An agent by curl: agent.sh SOCKET REALM SUBJECT BATCH_USER ID COMMAND...
# The last line it writes is the job as JSON; the exit code is 0 when the job's was.
set -eu
socket=$1 realm=$2 subject=$3 batch_user=$4 id=$5
shift 5

# Whoever else could have put the socket there could read what is sent, and answer.
for path in "$socket" "$(dirname "$socket")"; do
	[ "$(stat -c %u "$path")" = 0 ] || { echo "$path is not root's" >&2; exit 69; }
done

quoted() { printf '"%s"' "$(printf %s "$1" | sed 's/[\\"]/\\&/g')"; }
call() { # METHOD PATH [BODY]; waits for a service that is being restarted
	method=$1 path=$2
	shift 2
	curl --silent --show-error --retry 30 --retry-all-errors --retry-delay 1 --unix-socket "$socket" \
		-X "$method" -H 'Content-Type: application/json' ${1:+--data-binary "$1"} "http://batchwarden$path"
}

who="\"realm\":$(quoted "$realm"),\"subject\":{\"user\":$(quoted "$subject")},\"batch_user\":$(quoted "$batch_user")"
command=
for word; do command="$command${command:+,}$(quoted "$word")"; done

call GET /v1/whoami
call POST /v1/authorize "{$who}" | grep '"allowed":true' || exit 1
# The same id and body are the same job, however often they are sent: also by an agent that was restarted.
call POST /v1/jobs "{\"id\":$(quoted "$id"),$who,\"command\":[$command]}"
while job=$(call GET "/v1/jobs/$id?wait=30s"); do
	case $job in
	*'"state":"starting"'* | *'"state":"running"'*) ;;
	*) break ;;
	esac
done
printf '%s\n' "$job"
case $job in *'"exit_code":0,'*) ;; *) exit 1 ;; esac
