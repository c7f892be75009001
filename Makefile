# make, make run, make test need a Rust toolchain and a C compiler; what else is used is said below.

PREFIX     ?= /usr/local
BINDIR     ?= $(PREFIX)/bin
SBINDIR    ?= $(PREFIX)/sbin
MANDIR     ?= $(PREFIX)/share/man
DOCDIR     ?= $(PREFIX)/share/doc/fived
SYSCONFDIR ?= /etc
UNITDIR    ?= $(PREFIX)/lib/systemd/system
SYSUSERSDIR ?= $(PREFIX)/lib/sysusers.d
BASHCOMPDIR ?= $(PREFIX)/share/bash-completion/completions
ZSHCOMPDIR ?= $(PREFIX)/share/zsh/site-functions
DESTDIR    ?=
CARGO      ?= cargo
INSTALL    ?= install
# Seconds for each target of `make fuzz`.
FUZZ_SECONDS ?= 30

TARGET  = $(or $(CARGO_TARGET_DIR),target)
PROGRAM = $(TARGET)/release/fived
CLIENT  = $(TARGET)/release/five

.PHONY: all run test trials tools install uninstall deb deb-trial bench fuzz asan miri

all:
	$(CARGO) build --release --locked

# On port 1 where that is allowed, else on the first free one from 1001 upward; for this computer alone (see etc/demo.sh).
run: all
	@etc/demo.sh run "$(PROGRAM)"

test: tools
	CARGO="$(CARGO)" tests/suite

# The trials of README.md, as NAME:FILE:TEST[,TEST...] of tests/, which tests/manual.rs compares with that page.
TRIALS = \
	requests:fuzzed:every_request_line_gets_its_answer \
	tls-junk:fuzzed:junk_in_tls_ends_its_connection_and_no_other \
	frames:fuzzed:frames_of_any_kind_end_their_session_at_most \
	orders:captured:whatever_a_captured_net_says_only_it_is_ended \
	census:census:no_process_of_fived_has_a_right_that_it_does_not_need \
	children:census:a_service_gets_nothing_that_is_not_its_own \
	reload:reload:no_connection_is_refused_or_broken_by_reloads \
	calls:five_reload:calls_that_cross_a_reload_are_served_once \
	nets:processes:a_killed_net_is_replaced_and_nobody_is_refused_meanwhile \
	faults:faults:whatever_fails_in_the_parent_it_goes_on_or_says_why_not,whatever_fails_in_net_it_goes_on_or_is_replaced \
	descriptors:exhaustion:descriptors_run_out_and_come_back \
	processes:exhaustion:processes_run_out_and_come_back \
	leaks:security:refusals_and_internal_services_leave_neither_memory_nor_descriptors \
	exact:traffic:every_byte_comes_back_in_every_way \
	slow:traffic:slow_clients_are_served_and_hold_up_nobody \
	fair:traffic:who_takes_much_leaves_others_their_share \
	silent:bounds:thousands_of_silent_clients_cost_next_to_nothing \
	log:log:a_log_that_nobody_reads_never_blocks_service \
	full-disk:log_trouble:a_full_disk_holds_up_nobody_and_each_line_is_there_or_counted \
	syslog:log_trouble:a_syslog_that_comes_and_goes_holds_up_nobody_and_each_line_is_there_or_counted \
	clock:clock:jumps_of_the_wall_clock_change_nothing \
	outage:five_outage:a_link_that_is_down_at_the_server_is_a_pause,a_link_that_is_down_at_the_client_is_a_pause,a_computer_that_slept_goes_on \
	cuts:five_resume:any_number_of_cuts_loses_and_doubles_nothing,any_number_of_cuts_ends_no_stream_of_many \
	roams:five_roams:idle_streams_go_on,ssh_goes_on,rsync_goes_on,a_transaction_of_psql_goes_on \
	look-ups:redirect:a_name_is_looked_up_again_and_keeps_its_last_address_when_it_is_gone \
	soak:soak:all_that_comes_at_once_is_served_and_leaves_nothing \
	quiet:ports:a_thousand_ports_wake_nobody_while_no_client_comes

# One after the other: those that TRIAL names, or all of them; at their full size, or as large as SIZE says.
TRIAL ?=
SIZE  ?= full
trials: tools
	@CARGO="$(CARGO)" FIVED_TRIAL_SIZE="$(SIZE)" tests/trials "$(TRIAL)" $(TRIALS)

# Programs that tests use as clients and oracles, as COMMAND:PACKAGE. Root gets what is missing where there is apt-get; else the
# tests that want it say so and are skipped.
TOOLS = mandoc:mandoc nc:netcat-openbsd openssl:openssl ssh-keygen:openssh-client git:git perl:perl curl:curl rsync:rsync bash:bash zsh:zsh strace:strace script:bsdutils tmux:tmux vi:vim-tiny top:procps
tools:
	@missing=; for t in $(TOOLS); do command -v $${t%:*} >/dev/null 2>&1 || missing="$$missing $${t#*:}"; done; \
	[ -n "$$missing" ] || exit 0; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then \
		echo "installing for the tests:$$missing"; \
		{ apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends $$missing; } >/dev/null \
			|| echo "apt-get failed: tests that want$$missing are skipped"; \
	else \
		echo "not installed, tests that want them are skipped:$$missing"; \
	fi

# After `make`; a build of its own only where there is none yet, so that `sudo make install` needs no Rust.
$(PROGRAM) $(CLIENT):
	$(CARGO) build --release --locked

# The paths in pages and units, as they are installed here.
PLACES = sed -e 's|/usr/local/sbin/fived|$(SBINDIR)/fived|' -e 's|/usr/local/bin/five|$(BINDIR)/five|' \
	-e 's|/usr/local/share/doc/fived|$(DOCDIR)|'

install: $(PROGRAM) $(CLIENT)
	$(INSTALL) -d "$(DESTDIR)$(BINDIR)" "$(DESTDIR)$(SBINDIR)" "$(DESTDIR)$(MANDIR)/man1" "$(DESTDIR)$(MANDIR)/man5" \
		"$(DESTDIR)$(MANDIR)/man7" "$(DESTDIR)$(MANDIR)/man8" "$(DESTDIR)$(SYSCONFDIR)" "$(DESTDIR)$(UNITDIR)" \
		"$(DESTDIR)$(BASHCOMPDIR)" "$(DESTDIR)$(ZSHCOMPDIR)" "$(DESTDIR)$(SYSUSERSDIR)" "$(DESTDIR)$(DOCDIR)"
	$(INSTALL) -m 755 "$(PROGRAM)" "$(DESTDIR)$(SBINDIR)/fived"
	$(INSTALL) -m 755 "$(CLIENT)" "$(DESTDIR)$(BINDIR)/five"
	[ -e "$(DESTDIR)$(SYSCONFDIR)/fived.conf" ] || $(INSTALL) -m 644 etc/fived.conf "$(DESTDIR)$(SYSCONFDIR)/fived.conf"
	for page in man/*.[1-8]; do \
		$(PLACES) "$$page" >"$(DESTDIR)$(MANDIR)/man$${page##*.}/$${page#man/}" && \
		chmod 644 "$(DESTDIR)$(MANDIR)/man$${page##*.}/$${page#man/}" || exit 1; \
	done
	$(PLACES) etc/fived.service >"$(DESTDIR)$(UNITDIR)/fived.service"
	chmod 644 "$(DESTDIR)$(UNITDIR)/fived.service"
	$(INSTALL) -m 644 etc/fived.socket "$(DESTDIR)$(UNITDIR)/fived.socket"
	$(INSTALL) -m 644 etc/fived.sysusers "$(DESTDIR)$(SYSUSERSDIR)/fived.conf"
	$(INSTALL) -m 644 etc/five.bash "$(DESTDIR)$(BASHCOMPDIR)/five"
	$(INSTALL) -m 644 etc/_five "$(DESTDIR)$(ZSHCOMPDIR)/_five"
	$(INSTALL) -m 644 etc/fived-prometheus.rules.yml etc/fived-grafana.json "$(DESTDIR)$(DOCDIR)"

# The configuration and /var/lib/fived stay: they are not ours.
uninstall:
	rm -f "$(DESTDIR)$(SBINDIR)/fived" "$(DESTDIR)$(MANDIR)/man5/fived.conf.5" "$(DESTDIR)$(MANDIR)/man7/fived-session.7" \
		"$(DESTDIR)$(MANDIR)/man7/fived-security.7" "$(DESTDIR)$(MANDIR)/man8/fived.8" "$(DESTDIR)$(UNITDIR)/fived.service" "$(DESTDIR)$(UNITDIR)/fived.socket" \
		"$(DESTDIR)$(BINDIR)/five" "$(DESTDIR)$(MANDIR)/man1/five.1" "$(DESTDIR)$(BASHCOMPDIR)/five" "$(DESTDIR)$(ZSHCOMPDIR)/_five" \
		"$(DESTDIR)$(SYSUSERSDIR)/fived.conf" \
		"$(DESTDIR)$(DOCDIR)/fived-prometheus.rules.yml" "$(DESTDIR)$(DOCDIR)/fived-grafana.json"

# A package for Debian, in this directory. Wants dpkg-dev.
deb: all
	@etc/debian/build "$(PROGRAM)" "$(CLIENT)"

# Installs, upgrades, removes and purges it in a clean Debian. Wants root, debootstrap, systemd-container, and the first time a mirror.
deb-trial: all
	@dir=$$(mktemp -d); trap 'rm -rf "$$dir"' EXIT; \
	old=$$(etc/debian/build "$(PROGRAM)" "$(CLIENT)" "$$dir") && \
	new=$$(VERSION=99 etc/debian/build "$(PROGRAM)" "$(CLIENT)" "$$dir") && tests/deb/trial "$$old" "$$new"

# fived beside its peers and beside what the machine can do at all.
bench: all
	benches/run

# Every target of fuzz/ for FUZZ_SECONDS, one after the other, with the address sanitizer: what cargo-fuzz would do is these flags, which
# RUSTC_BOOTSTRAP lets every toolchain take. Wants a C++ compiler. Inputs that were worth keeping are in fuzz/corpus, those that broke
# something in fuzz/artifacts.
FUZZ_FLAGS = --cfg fuzzing -Zsanitizer=address -Cdebug-assertions -Ccodegen-units=1 -Cpasses=sancov-module \
	-Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
	-Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares
fuzz:
	@command -v c++ >/dev/null 2>&1 || { echo "make fuzz wants a C++ compiler: apt-get install g++" >&2; exit 1; }
	@set -e; host=$$(rustc -vV | sed -n 's/^host: //p'); \
	for t in $$(ls fuzz/fuzz_targets | sed -n 's/\.rs$$//p'); do \
		echo "fuzzing $$t for $(FUZZ_SECONDS) s"; \
		mkdir -p fuzz/corpus/$$t fuzz/artifacts/$$t; \
		RUSTC_BOOTSTRAP=1 RUSTFLAGS="$(FUZZ_FLAGS)" CARGO_TARGET_DIR=fuzz/target $(CARGO) run --locked --quiet --release --manifest-path fuzz/Cargo.toml \
			--target $$host --bin $$t -- fuzz/corpus/$$t -artifact_prefix=fuzz/artifacts/$$t/ \
			-max_total_time=$(FUZZ_SECONDS) -rss_limit_mb=2048 -verbosity=0 -print_final_stats=1; \
	done

# Every test with the address sanitizer, which finds what Rust does not see: memory of the C library, of unsafe code, of C tests. ASAN is
# for cargo (`ASAN="--lib --test service"`). On two processors it takes about a quarter of an hour, and most of the first one builds.
# With --target, so that build scripts and macros, which run in the compiler, have no sanitizer. A finding fails its test (`sane` in
# tests/support/mod.rs). No test is left out; what the sanitizer's own needs leave out of tests is marked `cfg(asan)` or `cfg!(asan)` there:
#   how much memory is used (`rss` in tests/support/proc.rs): the sanitizer keeps what was freed
#   memory that net is refused (tests/faults.rs): the sanitizer ends whoever gets none
#   the handler that it has for SIGFPE (tests/security.rs)
#   a /proc that is locked (tests/locked_directories.rs): the sanitizer looks there when a program begins
# Its options are compiled in too (src/sys/sanitizer.rs). Leaks are not looked for, because that wants ptrace(2), which fived gives up; nor
# the use of a returned call's memory, which the sanitizer would have to keep apart from the stack, and a child that shares its parent's
# memory would leave it there by exec.
ASAN ?=
asan: tools
	@host=$$(rustc -vV | sed -n 's/^host: //p'); \
	ASAN_OPTIONS=detect_leaks=0:detect_stack_use_after_return=0 RUSTC_BOOTSTRAP=1 RUSTFLAGS="-Zsanitizer=address --cfg asan" CARGO_TARGET_DIR=$(TARGET)/asan \
		RUST_TEST_THREADS="$${RUST_TEST_THREADS:-$$(( $$(nproc) * 2 ))}" $(CARGO) test --locked --no-fail-fast --target $$host $(ASAN)

# The pure sides (they ask the system for nothing) in Miri, which finds undefined behaviour. Only some toolchains have it. It is so
# slow that property tests run with MIRI_CASES inputs each; with their usual 256 it takes hours.
MIRI_CASES ?= 4
miri:
	@$(CARGO) miri --version >/dev/null 2>&1 || { echo "make miri wants cargo miri, which this toolchain does not have: rustup +nightly component add miri, then CARGO='cargo +nightly' make miri" >&2; exit 1; }
	PROPTEST_CASES=$(MIRI_CASES) MIRIFLAGS=-Zmiri-disable-isolation CARGO_TARGET_DIR=$(TARGET)/miri $(CARGO) miri test --locked --lib -- wire:: policy::
