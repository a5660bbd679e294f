// What ThreadSanitizer cannot know. Of libraries that a distribution compiled without it:
//
// oneDNN keeps a cache of primitives that all threads share, under locks of its own; it calls
// nothing of ours. Copies of an absl::Status on several threads share what they say and count
// themselves in Abseil's compiled part: the last one's end is no race with an earlier reading. Its
// graph of mutexes has a lock of its own.
//
// And of memory that one process maps twice, as ranks in one process do: a step of the former epoch
// that wrote a KV block has ended on all ranks before its leader hands the block to the next epoch,
// but each rank sees that through a mapping of its own.
extern "C" const char* __tsan_default_suppressions() {
  return "race:libdnnl.so\n"
         "race:status_internal\n"
         "race:Status::Unref\n"
         "race:GraphCycles\n"
         "race:muster::PullBlock\n";
}
