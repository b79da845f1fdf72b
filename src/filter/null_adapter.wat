;; What a guest's run time asks of `wasi_snapshot_preview1`, answered inside the component.
;;
;; C libraries and the Go run time import WASI even for a filter that uses none of it. This adapter imports nothing, so
;; such a filter becomes a component without any `wasi:` import. What it says: there is nothing out there. Output is
;; swallowed, there are no files, arguments or environment, the clock only ticks when it is read, random numbers are the
;; same in every instance. A filter that wants the time or a log asks the gateway, through `wit/`.
;;
;; It has no stack, no data and no memory of its own: all it touches is what the guest points at. `wit-component` drops
;; the functions that a guest does not import. Numbers that are returned: 0 is success, 8 `badf`.
(module
  (import "env" "memory" (memory 0))

  ;; Nanoseconds. From one second on, as run times take 0 for "not yet read".
  (global $now (mut i64) (i64.const 1_000_000_000))
  (global $random (mut i64) (i64.const 0x9e3779b97f4a7c15))

  ;; No arguments, no environment: their number and the octets they need are 0.
  (func (export "args_sizes_get") (export "environ_sizes_get") (param $count i32) (param $octets i32) (result i32)
    (i32.store (local.get $count) (i32.const 0))
    (i32.store (local.get $octets) (i32.const 0))
    (i32.const 0))
  (func (export "args_get") (export "environ_get") (param i32 i32) (result i32) (i32.const 0))

  ;; Every look at the clock moves it on by a microsecond: who waits for it to change does not wait for ever.
  (func (export "clock_time_get") (param $id i32) (param $precision i64) (param $time i32) (result i32)
    (global.set $now (i64.add (global.get $now) (i64.const 1_000)))
    (i64.store (local.get $time) (global.get $now))
    (i32.const 0))
  (func (export "clock_res_get") (param $id i32) (param $resolution i32) (result i32)
    (i64.store (local.get $resolution) (i64.const 1_000))
    (i32.const 0))
  ;; Go's allocator stops the stock adapter's clock while it may not call the host. This one calls nobody.
  (func (export "adapter_monotonic_clock_set_paused") (param i32))

  ;; Waiting is over at once, and the clock stands where it then would. Who waits for a file hears `badf`.
  (func (export "poll_oneoff") (param $in i32) (param $out i32) (param $count i32) (param $events i32) (result i32)
    (i32.store (local.get $events) (local.get $count))
    (loop $next
      (if (local.get $count) (then
        (i64.store (local.get $out) (i64.load (local.get $in)))                 ;; user data
        (i64.store offset=8 (local.get $out) (i64.const 0))                     ;; error and kind
        (i64.store offset=16 (local.get $out) (i64.const 0))
        (i64.store offset=24 (local.get $out) (i64.const 0))
        (if (i32.load8_u offset=8 (local.get $in))
          (then
            (i32.store16 offset=8 (local.get $out) (i32.const 8))
            (i32.store8 offset=10 (local.get $out) (i32.load8_u offset=8 (local.get $in))))
          (else (call $wait_until (i64.add (i64.load offset=24 (local.get $in))
            (select (i64.const 0) (global.get $now) (i32.load16_u offset=40 (local.get $in)))))))
        (local.set $in (i32.add (local.get $in) (i32.const 48)))
        (local.set $out (i32.add (local.get $out) (i32.const 32)))
        (local.set $count (i32.sub (local.get $count) (i32.const 1)))
        (br $next))))
    (i32.const 0))
  (func $wait_until (param $then i64)
    (if (i64.gt_u (local.get $then) (global.get $now)) (then (global.set $now (local.get $then)))))
  (func (export "sched_yield") (result i32) (i32.const 0))

  ;; xorshift64. Good enough to spread keys over a table, and no secret.
  (func (export "random_get") (param $to i32) (param $octets i32) (result i32)
    (local $x i64)
    (loop $next
      (if (local.get $octets) (then
        (local.set $x (global.get $random))
        (local.set $x (i64.xor (local.get $x) (i64.shl (local.get $x) (i64.const 13))))
        (local.set $x (i64.xor (local.get $x) (i64.shr_u (local.get $x) (i64.const 7))))
        (local.set $x (i64.xor (local.get $x) (i64.shl (local.get $x) (i64.const 17))))
        (global.set $random (local.get $x))
        (i64.store8 (local.get $to) (i64.shr_u (local.get $x) (i64.const 32)))
        (local.set $to (i32.add (local.get $to) (i32.const 1)))
        (local.set $octets (i32.sub (local.get $octets) (i32.const 1)))
        (br $next))))
    (i32.const 0))

  ;; Says that all octets of all runs were written.
  (func (export "fd_write") (param $fd i32) (param $runs i32) (param $count i32) (param $written i32) (result i32)
    (local $sum i32)
    (loop $next
      (if (local.get $count) (then
        (local.set $sum (i32.add (local.get $sum) (i32.load offset=4 (local.get $runs))))
        (local.set $runs (i32.add (local.get $runs) (i32.const 8)))
        (local.set $count (i32.sub (local.get $count) (i32.const 1)))
        (br $next))))
    (i32.store (local.get $written) (local.get $sum))
    (i32.const 0))

  ;; The end of the instance: the gateway takes a trap for a failed call, and makes a new instance.
  (func (export "proc_exit") (param i32) unreachable)
  (func (export "proc_raise") (param i32) (result i32) unreachable)

  ;; Files, folders and sockets: none of them is open, so there is none.
  (func (export "fd_close") (export "fd_datasync") (export "fd_sync")
    (param i32) (result i32) (i32.const 8))
  (func (export "fd_fdstat_get") (export "fd_fdstat_set_flags") (export "fd_filestat_get") (export "fd_prestat_get")
    (export "fd_renumber") (export "fd_tell") (export "sock_shutdown")
    (param i32 i32) (result i32) (i32.const 8))
  (func (export "fd_prestat_dir_name") (export "path_create_directory") (export "path_remove_directory")
    (export "path_unlink_file") (export "sock_accept")
    (param i32 i32 i32) (result i32) (i32.const 8))
  (func (export "fd_read") (param i32 i32 i32 i32) (result i32) (i32.const 8))
  (func (export "path_filestat_get") (export "path_symlink") (export "sock_send")
    (param i32 i32 i32 i32 i32) (result i32) (i32.const 8))
  (func (export "path_readlink") (export "path_rename") (export "sock_recv")
    (param i32 i32 i32 i32 i32 i32) (result i32) (i32.const 8))
  (func (export "path_link") (param i32 i32 i32 i32 i32 i32 i32) (result i32) (i32.const 8))
  (func (export "fd_filestat_set_size") (param i32 i64) (result i32) (i32.const 8))
  (func (export "fd_allocate") (export "fd_fdstat_set_rights") (param i32 i64 i64) (result i32) (i32.const 8))
  (func (export "fd_advise") (export "fd_filestat_set_times") (param i32 i64 i64 i32) (result i32) (i32.const 8))
  (func (export "fd_seek") (param i32 i64 i32 i32) (result i32) (i32.const 8))
  (func (export "fd_pread") (export "fd_pwrite") (export "fd_readdir")
    (param i32 i32 i32 i64 i32) (result i32) (i32.const 8))
  (func (export "path_filestat_set_times") (param i32 i32 i32 i32 i64 i64 i32) (result i32) (i32.const 8))
  (func (export "path_open") (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32) (i32.const 8)))
