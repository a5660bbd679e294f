#ifndef MUSTER_WORKER_DEVICE_DEVICE_SPEED_H_
#define MUSTER_WORKER_DEVICE_DEVICE_SPEED_H_

namespace muster {

// What a device as a whole reaches with nothing else to do.
struct DeviceSpeed {
  double read_bytes_per_second = 0;    // plain reading of memory that no cache holds
  double matrix_flops_per_second = 0;  // a square product; 2 per multiplication and addition
};

}  // namespace muster

#endif  // MUSTER_WORKER_DEVICE_DEVICE_SPEED_H_
