//! wg-quick configuration files: text in, typed values out.
