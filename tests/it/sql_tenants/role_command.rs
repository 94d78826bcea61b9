//! role_command
